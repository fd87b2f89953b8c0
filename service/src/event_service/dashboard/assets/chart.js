// Lines over time. The pointer shows the values at a moment, and its time of day.

import { el, setAttribute, setText, svg } from "./dom.js";
import { STATES, clockTime } from "./format.js";

const HEIGHT = 40;
// The pointer describes a mark within this distance, as a fraction of the chart's width.
const NEAR = 0.015;

/**
 * `lines`: { name, shape, text(value) }, drawn in this order; lines without a name show no value.
 * `shape` is a class of the style sheet.
 */
export function chart(lines) {
  const ground = svg("path", { class: "ground" });
  const paths = lines.map(({ shape }) => svg("path", { class: shape }));
  const marks = svg("g", { class: "marks" });
  const cursor = svg("path", { class: "cursor" });
  const drawing = svg("svg", { class: "chart", role: "img", preserveAspectRatio: "none" }, ground, ...paths, marks, cursor);
  const begin = el("span");
  const middle = el("span");
  const values = el("p", { class: "values", "aria-hidden": "true", hidden: "" });
  const scale = el("p", { class: "scale" }, begin, middle, el("span", {}, "now"));
  const node = el("div", { class: "plot" }, drawing, values, scale);
  let shown = null;
  let pointer = null;

  /** `series`: numbers, or null where there is none, for each line; `view` as in view.js. */
  function draw(series, view, { label, about, circuits }) {
    shown = { series, view, marks: view.marks.filter((mark) => !circuits || circuits.includes(mark.breaker)) };
    const last = series[0].length - 1;
    const top = Math.max(0, ...series.flat());
    const y = (value) => (HEIGHT - (value / (top || 1)) * (HEIGHT - 3)).toFixed(2);
    setAttribute(drawing, "viewBox", `0 0 ${last} ${HEIGHT}`);
    setAttribute(drawing, "aria-label", label(top, series));
    setAttribute(ground, "d", `M0 ${HEIGHT}H${last}`);
    lines.forEach(({ shape }, index) => {
      const filled = shape === "area" || shape === "bad";
      setAttribute(paths[index], "d", filled ? area(series[index], y) : line(series[index], y));
    });
    marks.replaceChildren(...shown.marks.map((mark) => markAt(mark, view.share(mark.at) * last)));
    setText(begin, view.ago);
    setText(middle, about(top));
    point();
  }

  function point() {
    const hidden = pointer === null || !shown;
    values.hidden = hidden;
    setAttribute(cursor, "d", "");
    if (hidden) return;
    const { series, view } = shown;
    const last = series[0].length - 1;
    const index = Math.round(pointer * last);
    setAttribute(cursor, "d", `M${index} 0V${HEIGHT}`);
    const told = lines.flatMap(({ name, text }, n) => (name ? [`${name} ${text(series[n][index])}`] : []));
    const near = shown.marks.filter((mark) => Math.abs(view.share(mark.at) - pointer) < NEAR).slice(-2);
    const moves = near.map((mark) => `${clockTime(mark.at)} ${mark.breaker} ${STATES[mark.new].toLowerCase()}: ${mark.reason}`);
    setText(values, [view.timeOf(index), ...told, ...moves].join(" · "));
    values.classList.toggle("right", pointer > 0.5);
  }

  node.addEventListener("pointermove", (event) => {
    const box = drawing.getBoundingClientRect();
    pointer = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    point();
  });
  for (const end of ["pointerleave", "pointercancel"]) {
    node.addEventListener(end, () => {
      pointer = null;
      point();
    });
  }
  return { node, draw };
}

/** The legend for all charts of a section. */
export function legend(lines) {
  const items = lines.map(([shape, text]) => el("li", {}, el("i", { class: `key ${shape}`, "aria-hidden": "true" }), text));
  return el("ul", { class: "legend" }, ...items);
}

function markAt(mark, x) {
  const at = x.toFixed(2);
  return svg("path", { class: "mark", "data-state": mark.new, d: `M${at} 0V${HEIGHT}` });
}

function line(values, y) {
  if (!values.some(Boolean)) return "";
  let path = "";
  values.forEach((value, x) => {
    if (value === null) return;
    const joined = x > 0 && values[x - 1] !== null;
    path += joined ? `L${x} ${y(value)}` : `M${Math.max(0, x - 0.4)} ${y(value)}H${x}`;
  });
  return path;
}

function area(values, y) {
  if (!values.some(Boolean)) return "";
  return `M0 ${HEIGHT}${values.map((value, x) => `L${x} ${y(value ?? 0)}`).join("")}V${HEIGHT}Z`;
}
