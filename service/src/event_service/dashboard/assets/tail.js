import { el, icon, setText } from "./dom.js";
import { OUTCOMES, STATES, clockTime, count, latency } from "./format.js";

const KEPT = 400;

/** The latest transitions and failed requests, the newest first. */
export function tail() {
  const list = document.getElementById("tail");
  const empty = document.getElementById("tail-empty");
  const total = document.getElementById("tail-count");
  const filter = document.getElementById("tail-filter");
  const pause = document.getElementById("tail-pause");
  const form = document.getElementById("tail-form");
  let rows = [];
  let held = [];
  let paused = false;
  let seen = { transition: 0, failure: 0 };
  let previous = null;

  function update(frame) {
    if (previous && (frame.worker !== previous.worker || frame.uptime < previous.uptime)) {
      seen = { transition: 0, failure: 0 };
      held.unshift(note(frame, `Connected to worker ${frame.worker}, which started ${clockTime(frame.time - frame.uptime)}`));
    }
    previous = frame;
    const news = [
      ...fresh(frame.transitions, "transition", frame),
      ...fresh(frame.failures, "failure", frame),
    ].sort((a, b) => b.at - a.at);
    held = [...news, ...held].slice(0, KEPT);
    if (!paused) release();
    tell(frame);
  }

  function fresh(items, kind, frame) {
    const unseen = items.filter((item) => item.number > seen[kind]);
    if (!unseen.length) return [];
    const skipped = unseen[0].number - seen[kind] - 1;
    seen[kind] = unseen.at(-1).number;
    const made = unseen.map((item) => (kind === "failure" ? failure(item, frame) : transition(item, frame)));
    if (skipped > 0) {
      const at = made[0].at - 0.001;
      made.push({ ...note(frame, `${count(skipped)} earlier ones are not shown`, kind), at });
    }
    return made;
  }

  function release() {
    if (held.length) {
      rows = [...held, ...rows];
      list.prepend(...held.map((row) => row.node));
      for (const row of rows.splice(KEPT)) row.node.remove();
      for (const row of held) choose(row);
      held = [];
    }
    empty.hidden = rows.some((row) => !row.node.hidden);
    setText(empty, rows.length ? "Nothing here matches." : "Nothing has failed and no circuit has moved so far.");
  }

  function choose(row) {
    const kind = new FormData(form).get("kind");
    const wanted = filter.value.trim().toLowerCase();
    row.node.hidden = (kind !== "all" && kind !== row.kind) || !row.text.includes(wanted);
  }

  function chooseAll() {
    rows.forEach(choose);
    release();
  }

  function tell(frame) {
    const waiting = paused ? ` · paused, ${count(held.length)} new` : "";
    setText(total, `${count(frame.failed)} failed request${frame.failed === 1 ? "" : "s"} since the start${waiting}`);
  }

  filter.addEventListener("input", chooseAll);
  form.addEventListener("change", chooseAll);
  form.addEventListener("submit", (event) => event.preventDefault());
  pause.addEventListener("click", () => {
    paused = !paused;
    pause.setAttribute("aria-pressed", String(paused));
    setText(pause, paused ? "Go on" : "Pause");
    if (!paused) release();
    if (previous) tell(previous);
  });

  return { update };
}

function transition(item, frame) {
  const what = el("span", { class: "what" }, icon(item.new), STATES[item.new]);
  const move = `${item.breaker} ${STATES[item.old].toLowerCase()} → ${STATES[item.new].toLowerCase()}`;
  return row("transition", frame.time - item.age, item.new, what, move, item.reason, "");
}

function failure(item, frame) {
  const what = el("span", { class: "what" }, icon("failed"), OUTCOMES[item.outcome].split(" ")[0]);
  const request = `${item.method} ${item.path}`;
  const cause = `${item.status} · ${latency(item.duration)}${item.cause ? ` · ${item.cause}` : ""}`;
  const made = row("failure", frame.time - item.age, "", what, request, cause, item.requestId);
  made.node.dataset.outcome = item.outcome;
  return made;
}

function note(frame, text, kind = "all") {
  return row(kind, frame.time, "", el("span", { class: "what muted" }, "…"), text, "", "");
}

function row(kind, at, state, what, subject, cause, id) {
  const node = el(
    "li",
    { "data-kind": kind, "data-state": state },
    el("time", { datetime: new Date(at * 1000).toISOString() }, clockTime(at)),
    what,
    el("span", { class: "path" }, subject),
    el("span", { class: "cause" }, cause),
    el("code", { class: "id" }, id),
  );
  return { kind, at, node, text: node.textContent.toLowerCase() };
}
