import { setAttribute, svg } from "./dom.js";

const HEIGHT = 40;

/** Lines over the last two minutes. `shapes` are CSS classes, drawn in their order. */
export function chart(shapes) {
  const ground = svg("path", { class: "ground" });
  const paths = shapes.map((name) => svg("path", { class: name }));
  const node = svg("svg", { class: "chart", role: "img", preserveAspectRatio: "none" }, ground, ...paths);

  /** `series`: numbers, or null where there is none, for each shape. */
  function draw(series, top, label) {
    const last = series[0].length - 1;
    const y = (value) => (HEIGHT - (value / (top || 1)) * (HEIGHT - 3)).toFixed(2);
    setAttribute(node, "viewBox", `0 0 ${last} ${HEIGHT}`);
    setAttribute(node, "aria-label", label);
    setAttribute(ground, "d", `M0 ${HEIGHT}H${last}`);
    shapes.forEach((shape, index) => {
      const filled = shape === "area" || shape === "bad";
      paths[index].setAttribute("d", filled ? area(series[index], y) : line(series[index], y));
    });
  }

  return { node, draw };
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
