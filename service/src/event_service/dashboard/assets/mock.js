// The panel of the mock upstream, in development: shows and sets its faults.

import { control } from "./controls.js";
import { el, setText } from "./dom.js";
import { count, share } from "./format.js";

const OPERATIONS = ["addEvent", "getUsers", "getUserById", "getEvents", "getEventById"];
const MODES = {
  none: "answers a status",
  reset: "resets the connection",
  hang: "hangs",
  garbage: "answers garbage",
  truncate: "breaks off half-way",
  empty: "answers nothing",
  "slow-body": "sends its body slowly",
  oversize: "answers far too much",
};
const STATUSES = [503, 500, 502, 504, 429, 404, 401];
const TRAFFIC_EVERY = 250;
// Other programs may set faults, too.
const LOOK_EVERY = 5000;

export function mockPanel(box) {
  const said = el("p", { class: "said", role: "status" });
  const now = whatIsSet(act);

  async function act(done, ...request) {
    try {
      await control(...request);
      setText(said, done);
    } catch (error) {
      setText(said, error.message);
    }
    await look();
  }

  async function look() {
    try {
      const response = await fetch("/dashboard/controls/mock");
      const found = await response.json();
      now.show(response.ok ? found : null, found.detail);
    } catch {
      now.show(null, "The service does not answer.");
    }
  }

  box.append(now.node, traffic(), fault(act), timing(act), said);
  look();
  setInterval(() => document.hidden || look(), LOOK_EVERY);
}

/** The mock's current faults, with a button to heal each. */
function whatIsSet(act) {
  const list = el("ul", { class: "set" });
  let shown = "";

  function show(found, problem) {
    const told = JSON.stringify(found ?? problem);
    if (told === shown) return;
    shown = told;
    if (!found) return list.replaceChildren(el("li", {}, problem));
    const faults = Object.entries(found.faults).map(([operation, each]) =>
      el(
        "li",
        {},
        el("span", {}, el("b", {}, operation), ` ${inWords(each)}`),
        button("Heal", () => act(`${operation} is healed.`, "DELETE", `/mock/faults/${operation}`), `Heal ${operation}`),
      ),
    );
    const { accept, refuse } = found.cycle;
    const cycle = refuse ? `accepts ${count(accept)}, then refuses ${count(refuse)}, and so on` : "accepts every event";
    return list.replaceChildren(
      ...(faults.length ? faults : [el("li", {}, "No fault is set.")]),
      el("li", {}, el("span", {}, el("b", {}, "addEvent"), ` ${cycle}`)),
      el("li", {}, el("span", {}, el("b", {}, "getEventById"), ` takes ${found.eventDelay} s`)),
    );
  }

  return { node: group("Set now", list), show };
}

/** Such as "in 50 % of calls answers 503 (Retry-After 5), 0.2 s late, for 3 more calls". */
function inWords(fault) {
  const asked = fault.mode !== undefined || fault.status !== undefined || fault.body !== undefined;
  const part = fault.error_rate ?? (asked ? 1 : 0);
  const after = Object.entries(fault.headers ?? {}).map(([name, value]) => ` (${name} ${value})`).join("");
  const how = fault.mode ? MODES[fault.mode] : `answers ${fault.status ?? 500}${after}`;
  const times = fault.first_n ? `for ${count(fault.first_n)} more calls` : "";
  const late = fault.delay || fault.jitter ? `is ${fault.delay ?? 0}${fault.jitter ? ` to ${(fault.delay ?? 0) + fault.jitter}` : ""} s late` : "";
  const fails = part > 0 ? `${part < 1 ? `in ${share(part)} of calls ` : ""}${how}` : "";
  return [fails, late, times].filter(Boolean).join(", ") || "works";
}

function traffic() {
  const toggle = el("button", { type: "button", "aria-pressed": "false" }, "Send traffic");
  let timer = 0;
  toggle.addEventListener("click", () => {
    clearInterval(timer);
    const sending = toggle.getAttribute("aria-pressed") !== "true";
    timer = sending ? setInterval(sendOne, TRAFFIC_EVERY) : 0;
    toggle.setAttribute("aria-pressed", String(sending));
    setText(toggle, sending ? "Stop the traffic" : "Send traffic");
  });
  return group(
    "Traffic from this page",
    el("p", { class: "muted" }, "Four requests a second: new events, users, and a user’s events."),
    el("div", { class: "row" }, toggle, button("Add one event", addEvent)),
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
  const operation = select(OPERATIONS.map((name) => [name, name]));
  const failing = number(100, 0, 100, 5);
  const delay = number(0, 0, 60, 0.1);
  const mode = select(Object.entries(MODES));
  const status = select(STATUSES.map((code) => [code, String(code)]));
  const retryAfter = number("", 0, 3600, 1);
  const plain = [labelled("Status", status), labelled("Retry-After, s", retryAfter)];
  mode.addEventListener("change", () => plain.forEach((each) => (each.hidden = mode.value !== "none")));

  function wanted() {
    const body = { delay: Number(delay.value), error_rate: Number(failing.value) / 100 };
    if (mode.value !== "none") return { ...body, mode: mode.value };
    const headers = retryAfter.value ? { headers: { "Retry-After": retryAfter.value } } : {};
    return { ...body, status: Number(status.value), ...headers };
  }

  return group(
    "Let an operation fail",
    el("div", { class: "row" }, labelled("Operation", operation), labelled("Failing, %", failing), labelled("How", mode), ...plain, labelled("Delay, s", delay)),
    el(
      "div",
      { class: "row" },
      button("Set the fault", () => act(`${operation.value} now fails as set.`, "PUT", `/mock/faults/${operation.value}`, wanted())),
      button("Heal everything", () => act("The mock is as it was when it started.", "POST", "/mock/reset")),
    ),
  );
}

function timing(act) {
  const accept = number(5, 0, 1000, 1);
  const refuse = number(10, 0, 1000, 1);
  const delay = number(0.5, 0, 60, 0.1);
  return group(
    "Its habits",
    el(
      "div",
      { class: "row" },
      labelled("addEvent accepts", accept),
      labelled("then refuses", refuse),
      button("Begin the cycle", () => {
        const body = { accept: Number(accept.value), refuse: Number(refuse.value) };
        act(`addEvent accepts ${body.accept}, then refuses ${body.refuse}, and so on.`, "PUT", "/mock/cycle", body);
      }),
    ),
    el(
      "div",
      { class: "row" },
      labelled("getEventById takes, s", delay),
      button("Set the delay", () => act(`getEventById now takes ${Number(delay.value)} s.`, "PUT", "/mock/event-delay", { seconds: Number(delay.value) })),
    ),
  );
}

function group(title, ...children) {
  return el("fieldset", {}, el("legend", {}, title), ...children);
}

function labelled(text, input) {
  // The options of a select are not part of its name.
  input.setAttribute("aria-label", text);
  return el("label", {}, text, input);
}

function number(value, min, max, step) {
  return el("input", { type: "number", value, min, max, step });
}

function select(options) {
  return el("select", {}, ...options.map(([value, text]) => el("option", { value }, text)));
}

function button(text, act, label = text) {
  const node = el("button", { type: "button", "aria-label": label }, text);
  node.addEventListener("click", act);
  return node;
}
