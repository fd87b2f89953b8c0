// Controls exist where the service says so: breakers in development and where they are enabled,
// the mock's faults in development.

import { el, setText } from "./dom.js";

const OPERATIONS = ["addEvent", "getUsers", "getUserById", "getEvents", "getEventById"];
const MODES = {
  none: "answers 500",
  reset: "resets the connection",
  hang: "hangs",
  garbage: "answers garbage",
  truncate: "breaks off half-way",
  empty: "answers nothing",
};
const TRAFFIC_EVERY = 250;

async function ask(method, path, body) {
  const response = await fetch(`/dashboard/controls${path}`, {
    method,
    headers: { "x-dashboard-control": "1", "content-type": "application/json" },
    body: body && JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.detail);
  return answer;
}

/** `say(text)` is told what went wrong. Where the service `asks`, the operator says how long, why and who. */
export function breakerActions(say, asks) {
  return (name, action) => {
    const wish = asks ? wishFor(name, action) : undefined;
    if (wish === null) return Promise.resolve();
    return ask("POST", `/breakers/${name}/${action}`, wish).catch((error) => say(error.message));
  };
}

/** What goes into the log with the action; null if the operator thinks better of it. */
function wishFor(name, action) {
  const reason = prompt(`${action} ${name}: why? This goes into the log.`);
  const by = reason && prompt("Who are you? This goes into the log.");
  if (!by) return null;
  if (action !== "trip" && action !== "isolate") return { reason, by };
  const seconds = prompt("For how many seconds? Empty: as long as usual.");
  if (seconds === null) return null;
  return Number(seconds) > 0 ? { reason, by, seconds: Number(seconds) } : { reason, by };
}

export function mockControls(box) {
  const said = el("p", { class: "said", role: "status" });
  const act = async (done, ...request) => {
    try {
      await ask(...request);
      setText(said, done);
    } catch (error) {
      setText(said, error.message);
    }
  };
  box.append(traffic(), fault(act), cycle(act), said);
}

function traffic() {
  const button = el("button", { type: "button", "aria-pressed": "false" }, "Send traffic");
  let timer = 0;
  button.addEventListener("click", () => {
    clearInterval(timer);
    const sending = button.getAttribute("aria-pressed") !== "true";
    timer = sending ? setInterval(sendOne, TRAFFIC_EVERY) : 0;
    button.setAttribute("aria-pressed", String(sending));
    setText(button, sending ? "Stop the traffic" : "Send traffic");
  });
  const add = el("button", { type: "button" }, "Add one event");
  add.addEventListener("click", addEvent);
  return group(
    "Traffic from this page",
    el("p", { class: "muted" }, "Four requests a second: new events, users, and a user’s events."),
    el("div", { class: "row" }, button, add),
  );
}

let turn = 0;
function sendOne() {
  turn += 1;
  if (turn % 2) return addEvent();
  const path = turn % 4 ? "/api/getUsers" : "/api/getEventsByUserId/1";
  return fetch(path).catch(() => {});
}

function addEvent() {
  return fetch("/api/addEvent", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ userId: "1", title: "Sent from the dashboard" }),
  }).catch(() => {});
}

function fault(act) {
  const operation = select(Object.fromEntries(OPERATIONS.map((name) => [name, name])));
  const failing = number(100, 0, 100, 5);
  const delay = number(0, 0, 60, 0.1);
  const mode = select(MODES);
  const form = group(
    "Let an operation fail",
    el(
      "div",
      { class: "row" },
      labelled("Operation", operation),
      labelled("Failing, %", failing),
      labelled("How", mode),
      labelled("Delay, s", delay),
    ),
    el(
      "div",
      { class: "row" },
      button("Set the fault", () => {
        const body = { delay: Number(delay.value), error_rate: Number(failing.value) / 100, mode: mode.value };
        act(`${operation.value} now fails as set.`, "PUT", `/mock/faults/${operation.value}`, body);
      }),
      button("Heal everything", () => act("The mock is as it was when it started.", "POST", "/mock/reset")),
    ),
  );
  return form;
}

function cycle(act) {
  const accept = number(5, 0, 1000, 1);
  const refuse = number(10, 0, 1000, 1);
  return group(
    "The cycle of addEvent",
    el("div", { class: "row" }, labelled("Accepts", accept), labelled("then refuses", refuse)),
    el(
      "div",
      { class: "row" },
      button("Begin the cycle", () => {
        const body = { accept: Number(accept.value), refuse: Number(refuse.value) };
        act(`addEvent accepts ${body.accept}, then refuses ${body.refuse}, and so on.`, "PUT", "/mock/cycle", body);
      }),
    ),
  );
}

function group(title, ...children) {
  return el("fieldset", {}, el("legend", {}, title), ...children);
}

function labelled(text, input) {
  return el("label", {}, text, input);
}

function number(value, min, max, step) {
  return el("input", { type: "number", value, min, max, step });
}

function select(options) {
  return el("select", {}, ...Object.entries(options).map(([value, text]) => el("option", { value }, text)));
}

function button(text, act) {
  const node = el("button", { type: "button" }, text);
  node.addEventListener("click", act);
  return node;
}
