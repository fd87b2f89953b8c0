import { chart } from "./chart.js";
import { el, setText } from "./dom.js";
import { figures } from "./endpoints.js";
import { count, latency, rate, share } from "./format.js";

const ALARMING = 0.05;

/** The retry budget, and the calls that were saved. */
export function gauges(box) {
  const retries = plain("Retry budget left");
  const shared = plain("Saved by single flight");
  const cached = plain("Cache hits");
  box.append(retries.node, shared.node, cached.node);

  return function update(upstream) {
    retries.update(
      `${count(Math.floor(upstream.retriesLeft))} retries`,
      `${count(upstream.retries)} made, ${count(upstream.gaveUp)} calls given up since the start`,
    );
    shared.update(`${count(upstream.shared)} calls`, "joined one that was under way, since the start");
    cached.update(count(upstream.cacheHits), "answered from memory, since the start");
  };
}

export function operationRow(first) {
  const now = el("span", { class: "muted" });
  const lines = chart([
    { name: "p50", shape: "line-2", text: latency },
    { name: "p95", shape: "line", text: latency },
  ]);
  const numbers = figures(["errors", "p50", "p95"]);
  const node = el(
    "article",
    { class: "tile operation", "data-operation": first.name },
    el("header", {}, el("h3", { class: "name" }, first.name), now),
    lines.node,
    numbers.node,
  );

  function update(operation, view) {
    setText(now, `${rate(operation.rate)} calls/s`);
    lines.draw([view.by(operation.p50, operation.longP50), view.by(operation.p95, operation.longP95)], view, {
      circuits: [operation.name],
      about: (top) => (top ? `p95 up to ${latency(top)}` : "no calls"),
      label: (top) => `Latency over ${view.name}: p95 at most ${latency(top || null)}`,
    });
    const { p50, p95 } = operation.latency;
    numbers.update([share(operation.errorShare), latency(p50), latency(p95)]);
    numbers.alarm(0, operation.errorShare >= ALARMING);
  }

  return { node, update };
}

export function plain(title) {
  const value = el("b");
  const more = el("p", { class: "muted" });
  const node = el("div", { class: "gauge" }, el("p", {}, el("span", {}, title), value), more);
  return {
    node,
    update(text, detail, alarming = false) {
      setText(value, text);
      setText(more, detail);
      value.classList.toggle("alarm", alarming);
    },
  };
}

export function bar(title) {
  const gauge = plain(title);
  const fill = el("i");
  gauge.node.insertBefore(el("div", { class: "meter", "aria-hidden": "true" }, fill), gauge.node.lastChild);
  return {
    node: gauge.node,
    update(text, detail, filled, alarming = false) {
      gauge.update(text, detail, alarming);
      fill.style.width = `${Math.min(1, filled) * 100}%`;
    },
  };
}
