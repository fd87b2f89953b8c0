import { chart } from "./chart.js";
import { el, setAttribute, setText } from "./dom.js";
import { OUTCOMES, count, latency, rate, share } from "./format.js";

// From this share on, errors have the colour of failure.
const ALARMING = 0.05;
// The circuits that are marked in a route's chart; other routes show all.
const CALLS = {
  "/api/getUsers": ["getUsers"],
  "/api/getEvents": ["getEvents"],
  "/api/getEventsByUserId/{id}": ["getUserById", "getEventById", "getEventsByUserId"],
  "/api/addEvent": ["addEvent"],
};

export function endpointTile(first) {
  const number = el("span");
  const perSecond = (value) => `${rate(value)}/s`;
  const lines = chart([
    { shape: "area" },
    { name: "requests", shape: "line", text: perSecond },
    { name: "failed or refused", shape: "bad", text: perSecond },
  ]);
  const numbers = figures(["errors", "refused", "p50", "p95", "p99"]);
  const mix = el("div", { class: "mix", "aria-hidden": "true" });
  const outcomes = outcomeCounts(mix);
  const name = el("h3", { class: "name" });
  if (first.method) name.append(el("span", { class: "method" }, first.method));
  name.append(withBreaks(first.route));
  const node = el(
    "article",
    { class: "tile endpoint", "data-route": first.route },
    el("header", {}, name, el("p", { class: "rate" }, number, el("small", {}, " /s"))),
    lines.node,
    numbers.node,
    mix,
    outcomes.node,
  );

  function update(endpoint, view) {
    setText(number, rate(endpoint.rate));
    const requests = view.by(endpoint.requests, endpoint.longRequests).map((each) => each / view.step);
    const errors = view.by(endpoint.errors, endpoint.longErrors).map((each) => each / view.step);
    lines.draw([requests, requests, errors], view, {
      circuits: CALLS[endpoint.route],
      about: (top) => (top ? `peak ${rate(top)}/s` : `no requests in ${view.name}`),
      label: (top) => `Requests a second over ${view.name}: at most ${rate(top)}, of which at most ${rate(Math.max(...errors))} failed or were refused`,
    });
    const { p50, p95, p99 } = endpoint.latency;
    const refused = endpoint.refused ? `${rate(endpoint.refused)} /s` : "–";
    numbers.update([share(endpoint.errorShare), refused, latency(p50), latency(p95), latency(p99)]);
    numbers.alarm(0, endpoint.errorShare >= ALARMING);
    outcomes.update(endpoint.counts);
  }

  return { node, update };
}

/** A row of named numbers. */
export function figures(names) {
  const values = names.map(() => el("dd"));
  const pairs = names.map((name, index) => el("div", {}, el("dt", {}, name), values[index]));
  return {
    node: el("dl", { class: "figures" }, ...pairs),
    update: (texts) => texts.forEach((text, index) => setText(values[index], text)),
    alarm: (index, on) => values[index].classList.toggle("alarm", on),
  };
}

function outcomeCounts(mix) {
  const parts = Object.entries(OUTCOMES).map(([outcome, text]) => {
    const bar = el("i", { "data-outcome": outcome });
    const number = el("b");
    const row = el("li", {}, el("i", { "data-outcome": outcome, "aria-hidden": "true" }), `${text} `, number);
    mix.append(bar);
    return { outcome, bar, number, row };
  });

  function update(counts) {
    const total = Object.values(counts).reduce((sum, each) => sum + each, 0);
    for (const { outcome, bar, number, row } of parts) {
      setText(number, count(counts[outcome]));
      setAttribute(row, "class", counts[outcome] ? "" : "none");
      bar.hidden = !counts[outcome];
      bar.style.flex = `${counts[outcome] / (total || 1)} 0 3px`;
    }
  }

  return { node: el("ul", { class: "counts" }, ...parts.map((part) => part.row)), update };
}

/** Lets a long path break after its slashes. */
function withBreaks(path) {
  const parts = document.createDocumentFragment();
  for (const piece of path.split(/(?<=\/)/)) parts.append(piece, el("wbr"));
  return parts;
}
