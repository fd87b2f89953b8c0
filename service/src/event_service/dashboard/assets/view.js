// The period that the charts show: two minutes in steps of a second, or a quarter of an hour in steps
// of ten seconds. The user's choice is remembered.

import { el } from "./dom.js";
import { clockTime } from "./format.js";

const KEY = "event-service-charts";
const SHORT = "2";
const LONG = "15";

/** The choice between the two, as a group of radio buttons; `onChange()` follows a click. */
export function viewChoice(onChange) {
  let chosen = localStorage.getItem(KEY) === LONG ? LONG : SHORT;

  function choice(value) {
    const input = el("input", { type: "radio", name: "view", value });
    input.checked = value === chosen;
    input.addEventListener("change", () => {
      chosen = value;
      localStorage.setItem(KEY, chosen);
      onChange();
    });
    return el("label", {}, input, el("span", {}, `${value} min`));
  }

  const node = el("fieldset", { class: "choice" }, el("legend", { class: "hidden" }, "Charts show the last"), choice(SHORT), choice(LONG));
  return { node, of: (frame) => viewOf(frame, chosen === LONG) };
}

/** How to place a frame's data on a chart. `by(short, long)` selects the data to draw. */
function viewOf(frame, long) {
  const step = long ? frame.recent : 1;
  const length = long ? 90 : 120;
  const ends = long ? frame.stretch : frame.second;
  const begins = ends - step * length;
  return {
    ago: long ? "15 min ago" : "2 min ago",
    name: long ? "15 minutes" : "two minutes",
    step,
    by: (short, longer) => (long ? longer : short),
    // A value is drawn at the end of its period; so are marks.
    share: (at) => (at - begins - step) / (step * (length - 1)),
    timeOf: (index) => {
      const to = begins + step * (index + 1);
      return step === 1 ? clockTime(to - step) : `${clockTime(to - step)} to ${clockTime(to)}`;
    },
    marks: frame.transitions.filter((each) => each.at > begins + step && each.at <= ends),
  };
}
