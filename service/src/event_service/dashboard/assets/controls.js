// The service decides whether controls exist: in development, and in production if they are
// enabled. In production they ask for duration, reason and name.

import { ask } from "./ask.js";

/** The answer of a control, or an Error with the service's message. */
export async function control(method, path, body) {
  const response = await fetch(`/dashboard/controls${path}`, {
    method,
    headers: { "x-dashboard-control": "1", "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.errors?.[0] ? `${answer.errors[0].path}: ${answer.errors[0].message}` : answer.detail);
  return answer;
}

const BREAKER = {
  trip: { about: "Its calls are refused for a while; then a canary is let through.", usual: "As long as the cooldown" },
  isolate: { about: "All its calls are refused.", usual: "Until it is released" },
  release: { about: "Its calls are let through again, as far as the circuit lets them.", usual: "" },
  reset: { about: "It is closed, and what it has counted is forgotten.", usual: "" },
};
const DELIVERY = {
  retry: { about: "It is queued again, at its old place.", usual: "" },
  drop: { about: "It is forgotten, whatever its state. An attempt that is under way goes on.", usual: "" },
};

/** `act(name, action)` for circuits. `say(text)` shows errors of controls without a dialog. */
export function breakerActions(say, asks) {
  return (name, action) => act(`/breakers/${encodeURIComponent(name)}/${action}`, { ...BREAKER[action], verb: verbOf(action), name }, say, asks);
}

/** `act(id, action)` for deliveries; it returns when that is done or was cancelled. */
export function deliveryActions(say, asks, done) {
  return (id, action) => act(`/outbox/${encodeURIComponent(id)}/${action}`, { ...DELIVERY[action], verb: verbOf(action), name: id }, say, asks, done);
}

const verbOf = (action) => action[0].toUpperCase() + action.slice(1);

function act(path, { about, usual, verb, name }, say, asks, done = () => {}) {
  const send = (wish) => control("POST", path, wish).then(() => done());
  if (!asks) return send().catch((error) => say(error.message));
  ask({ title: `${verb} ${name}`, about, usual, verb, act: send });
  return undefined;
}
