// Asks for the details that are logged with a control: duration, reason and name.

import { el, setText } from "./dom.js";

const KEY = "event-service-operator";
const DURATIONS = [
  [60, "1 minute"],
  [300, "5 minutes"],
  [900, "15 minutes"],
  [3600, "1 hour"],
  [28800, "8 hours"],
];

/**
 * A dialog that asks and then calls `act(wish)`. It closes on success, and shows the error on
 * failure. `usual` describes what happens without a duration; with "" it does not ask for one.
 */
export function ask({ title, about, usual, verb, act }) {
  const seconds = el("select", { name: "seconds" }, el("option", { value: "" }, usual), ...DURATIONS.map(([value, text]) => el("option", { value }, text)));
  const reason = el("input", { name: "reason", required: "", maxlength: "200", autocomplete: "off" });
  const by = el("input", { name: "by", required: "", maxlength: "100", autocomplete: "name", value: localStorage.getItem(KEY) ?? "" });
  const fault = el("p", { class: "fault", role: "alert" });
  const cancel = el("button", { type: "button" }, "Cancel");
  const go = el("button", { type: "submit", class: "primary" }, verb);
  const heading = el("h2", { id: "ask-title" }, title);
  const form = el(
    "form",
    {},
    heading,
    el("p", { id: "ask-about", class: "muted" }, `${about} What you write here goes into the log.`),
    ...(usual ? [el("label", {}, "For how long", seconds)] : []),
    el("label", {}, "Why", reason),
    el("label", {}, "Who you are", by),
    fault,
    el("div", { class: "row" }, cancel, go),
  );
  const dialog = el("dialog", { class: "ask", "aria-labelledby": "ask-title", "aria-describedby": "ask-about" }, form);

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    go.disabled = true;
    setText(fault, "");
    const wish = { reason: reason.value.trim(), by: by.value.trim() };
    if (seconds.value) wish.seconds = Number(seconds.value);
    try {
      await act(wish);
      localStorage.setItem(KEY, wish.by);
      dialog.close();
    } catch (error) {
      setText(fault, error.message);
    }
    go.disabled = false;
  });
  cancel.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  document.body.append(dialog);
  dialog.showModal();
  (usual ? seconds : reason).focus();
}
