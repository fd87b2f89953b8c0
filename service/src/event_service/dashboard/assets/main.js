import { breakerTile } from "./breakers.js";
import { legend } from "./chart.js";
import { breakerActions, deliveryActions } from "./controls.js";
import { arrange, each, el, setAttribute, setText } from "./dom.js";
import { endpointTile } from "./endpoints.js";
import { clockTime, span } from "./format.js";
import { mockPanel } from "./mock.js";
import { outboxPanel } from "./outbox.js";
import { announce, describe } from "./sentence.js";
import { serviceRow } from "./service.js";
import { follow } from "./stream.js";
import { tail } from "./tail.js";
import { themeButton } from "./theme.js";
import { gauges, operationRow } from "./upstream.js";
import { viewChoice } from "./view.js";

const byId = (id) => document.getElementById(id);
const FAULT_SHOWN = 8000;
// With so many requests for unknown paths in two minutes, these paths get a tile.
const STRAY = 5;
const circuits = byId("circuits");
const page = document.body.dataset;
const offered = page.controls.split(" ");
const asks = page.asks === "yes";
const act = offered.includes("breakers") ? breakerActions(say, asks) : null;
const actOnDeliveries = offered.includes("outbox") ? (done) => deliveryActions(say, asks, done) : null;
const updateGauges = gauges(byId("gauges"));
const updateService = serviceRow(byId("service"));
const updateTail = tail(page.trace).update;
const updateOutbox = outboxPanel(byId("outbox"), actOnDeliveries);
const view = viewChoice(() => frame && drawCharts());

let frame = null;
let link = "waiting";
let states = null;

const stream = follow("/dashboard/stream", { onFrame, onLink });
const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
setInterval(tick, calm ? 1000 : 250);

themeButton(byId("theme"));
if (page.session) offerSignOut(byId("sign-out"));
if (page.grafana) byId("theme").before(el("a", { href: page.grafana }, "Grafana"));
byId("endpoints-head").append(legend([["line", "requests"], ["bad", "failed or refused"], ["mark", "a circuit moves"]]), view.node);
byId("upstream-head").append(legend([["line", "p95"], ["line-2", "p50"], ["mark", "its circuit moves"]]));
if (offered.includes("mock")) {
  byId("controls").hidden = false;
  mockPanel(byId("controls-body"));
}

function onFrame(next) {
  frame = next;
  setText(byId("version"), `version ${frame.version}`);
  setText(byId("environment"), frame.environment);
  setText(byId("recent"), String(frame.recent));
  const workers = frame.workers > 1 ? ` · ${frame.workers} workers` : "";
  setText(byId("worker"), `up for ${span(frame.time - frame.started)}${workers}`);
  each(circuits, frame.breakers, (breaker) => breaker.name, (breaker) => breakerTile(breaker, act), frame);
  inOrder(frame.breakers);
  drawCharts();
  updateService(frame);
  updateGauges(frame.upstream);
  updateOutbox(frame);
  updateTail(frame);
  announceChanges();
  tick();
}

function drawCharts() {
  const shown = view.of(frame);
  each(byId("endpoints"), frame.endpoints.filter(worthATile), (endpoint) => `${endpoint.method} ${endpoint.route}`, endpointTile, shown);
  each(byId("operations"), frame.upstream.operations, (operation) => operation.name, operationRow, shown);
}

const WORST_FIRST = ["open", "half_open", "isolated", "closed"];

/** Worst first; equal ones stay in the service's order. */
function inOrder(breakers) {
  const rank = (breaker) => WORST_FIRST.indexOf(breaker.state);
  // Do not move a button that somebody is about to press.
  const busy = circuits.matches(":hover") || circuits.querySelector(":focus-visible");
  if (!busy) arrange(circuits, breakers.toSorted((a, b) => rank(a) - rank(b)).map((breaker) => breaker.name));
}

/** Shows a tile for unknown paths while there are many requests for them. */
function worthATile(endpoint) {
  return endpoint.method !== "" || endpoint.requests.reduce((sum, each) => sum + each, 0) >= STRAY;
}

function onLink(next) {
  if (next === "live" && link !== "waiting") speak("The stream is back.");
  if (next === "lost" || next === "stale") speak("The stream is lost; what is shown is old.");
  link = next;
  document.body.dataset.link = link;
  tick();
}

/** Updates what changes between two frames: ages, countdowns, the failure window. */
function tick() {
  const age = stream.age();
  const fresh = byId("fresh");
  setAttribute(fresh, "data-link", link);
  if (!frame) {
    setText(byId("fresh-text"), age > 3 ? "no answer yet; trying again" : "connecting");
    return;
  }
  if (link === "live") {
    setText(byId("fresh-text"), `live · ${clockTime(frame.time)}`);
    const now = frame.time + age;
    const { state, text, section } = describe(frame, now);
    banner(state, text, section);
    for (const tile of circuits.parts.values()) tile.tick(now);
  } else {
    setText(byId("fresh-text"), `${link} · last news at ${clockTime(frame.time)}`);
    banner("lost", `No news from the service for ${span(age)}; reconnecting`, "the-service-does-not-answer");
  }
}

const icons = { failing: "failed" };

function banner(state, text, section = "") {
  const what = byId("what-to-do");
  what.hidden = !section;
  setText(what, section ? `Run-book: ${section.replaceAll("-", " ")}` : "");
  if (section) setAttribute(what, "href", `${page.runbook}#${section}`);
  setAttribute(byId("banner"), "data-state", state);
  setAttribute(byId("banner-icon"), "href", `#icon-${icons[state] ?? state}`);
  setText(byId("sentence"), text);
  document.title = `${state === "closed" ? "✓" : "●"} ${text} · Event Service`;
}

function announceChanges() {
  const now = new Map(frame.breakers.map((breaker) => [breaker.name, breaker.state]));
  const moved = frame.breakers.filter((breaker) => states && states.get(breaker.name) !== breaker.state);
  states = now;
  if (!moved.length) return;
  const reason = (breaker) => frame.transitions.findLast((each) => each.breaker === breaker.name)?.reason;
  speak(moved.map((breaker) => announce(breaker, reason(breaker))).join(" "));
}

/** For screen readers: changes of state and of the stream, but no counting numbers. */
function speak(text) {
  setText(byId("announcement"), text);
}

/** Shows the error of a control. */
function say(text) {
  const fault = byId("fault");
  fault.hidden = false;
  setText(fault, text);
  speak(text);
  setTimeout(() => (fault.hidden = true), FAULT_SHOWN);
}

function offerSignOut(button) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    await fetch("/dashboard/session", { method: "DELETE" });
    location.reload();
  });
}
