// Queued, refused and dead deliveries; loaded when the section is opened.

import { copied, el, setText } from "./dom.js";
import { count, span } from "./format.js";

const STATES = { "": "All", queued: "Queued", refused: "Refused", dead: "Dead", delivered: "Delivered" };
const PAGE = 25;

/** `act(id, action)` is null if nothing may be changed; it is created with a function to call
 * afterwards. */
export function outboxPanel(section, makeAct) {
  const summary = el("summary", {}, "Deliveries");
  const state = el("select", { "aria-label": "State" }, ...Object.entries(STATES).map(([value, text]) => el("option", { value }, text)));
  const user = el("input", { type: "search", placeholder: "User id", "aria-label": "User id", autocomplete: "off", spellcheck: "false" });
  const refresh = el("button", { type: "button" }, "Look again");
  const older = el("button", { type: "button", hidden: "" }, "Older");
  const empty = el("p", { class: "empty" });
  const list = el("ol", { class: "deliveries" });
  const details = el(
    "details",
    { class: "tile" },
    summary,
    el("div", { class: "row" }, state, user, refresh),
    list,
    empty,
    older,
  );
  section.append(details);
  let pending = null;
  let last = null;
  let newest = 0;
  const act = makeAct?.(load);

  async function load(before = null) {
    const mine = ++newest;
    const query = new URLSearchParams({ limit: PAGE });
    if (state.value) query.set("state", state.value);
    if (user.value.trim()) query.set("user", user.value.trim());
    if (before) query.set("before", before);
    try {
      const response = await fetch(`/dashboard/outbox?${query}`);
      const answer = await response.json();
      // A later request may have been answered first.
      if (mine !== newest) return;
      if (!response.ok) throw new Error(answer.detail);
      const rows = answer.deliveries.map((each) => row(each, act));
      if (before) list.append(...rows);
      else list.replaceChildren(...rows);
      last = answer.deliveries.at(-1)?.number;
      older.hidden = answer.deliveries.length < PAGE;
      setText(empty, list.children.length ? "" : "There are none.");
    } catch (error) {
      setText(empty, error.message);
    }
  }

  details.addEventListener("toggle", () => details.open && load());
  state.addEventListener("change", () => load());
  user.addEventListener("change", () => load());
  refresh.addEventListener("click", () => load());
  older.addEventListener("click", () => load(last));

  return function update(frame) {
    section.hidden = !frame.outbox;
    if (!frame.outbox) return;
    const { pending: queued, oldest } = frame.outbox;
    setText(summary, queued ? `${count(queued)} queued, the oldest for ${span(oldest)}` : "Nothing is queued");
    // Do not move a row that somebody reads, or whose button somebody is about to press.
    const busy = list.contains(document.activeElement) || list.querySelector("details[open]");
    // A delivery that ends between two counts changes no count.
    const stale = queued !== pending || list.querySelector("li[data-status=queued]");
    if (details.open && stale && !busy) load();
    pending = queued;
  };
}

function row(delivery, act) {
  const { id, status, attempts, acceptedAt, userId, problem } = delivery;
  const what = problem ? ` · ${problem}` : "";
  const tried = `${count(attempts)} attempt${attempts === 1 ? "" : "s"}`;
  const all = el("details", {}, el("summary", {}, "All that is known"), el("pre", { tabindex: "0" }));
  all.addEventListener("toggle", async () => {
    if (!all.open) return;
    const response = await fetch(`/dashboard/outbox/${encodeURIComponent(id)}`);
    setText(all.lastChild, JSON.stringify(await response.json(), null, 2));
  });
  const buttons = el("span", { class: "buttons" });
  const button = (action, text) => {
    const node = el("button", { type: "button", "aria-label": `${text} ${id}` }, text);
    node.addEventListener("click", () => act(id, action));
    buttons.append(node);
  };
  if (act && (status === "refused" || status === "dead")) button("retry", "Retry");
  if (act) button("drop", "Drop");
  return el(
    "li",
    { "data-status": status, "data-id": id },
    el("time", { datetime: acceptedAt }, new Date(acceptedAt).toLocaleString("en-GB")),
    el("b", {}, STATES[status]),
    copied(id, "delivery’s id"),
    el("span", { class: "muted" }, `user ${userId} · ${tried}${what}`),
    buttons,
    all,
  );
}
