import { copied, el, icon, setText } from "./dom.js";
import { OUTCOMES, STATES, clockTime, count, latency, span } from "./format.js";

// Limits for each kind, so that one kind does not push out the others.
const KEPT = { transition: 150, failure: 200, refusal: 40, note: 20 };
// As in the service: a refusal so many seconds after the last one begins a new run.
const RUN_ENDS = 10;

/** The latest transitions, failed requests and runs of refusals, newest first. `traceUrl` is the URL
 * of a trace, with {trace_id} in it, or "". */
export function tail(traceUrl) {
  const list = document.getElementById("tail");
  const empty = document.getElementById("tail-empty");
  const total = document.getElementById("tail-count");
  const filter = document.getElementById("tail-filter");
  const pause = document.getElementById("tail-pause");
  const form = document.getElementById("tail-form");
  let rows = [];
  let held = [];
  let paused = false;
  let seen = new Map();
  let runs = new Map();
  let previous = null;

  function update(frame) {
    if (previous && (frame.worker !== previous.worker || frame.started > previous.started)) {
      if (frame.started > previous.started) seen = new Map();
      held.unshift(note(frame, `Connected to worker ${frame.workerNumber}, which started ${clockTime(frame.started)}`));
    }
    previous = frame;
    const news = [
      ...fresh(frame.transitions, "transition", frame),
      ...fresh(frame.failures, "failure", frame),
      ...freshRuns(frame),
    ];
    held = [...news, ...held].sort((a, b) => b.at - a.at);
    if (!paused) release();
    tell(frame);
  }

  /** Each worker numbers its own entries. */
  function fresh(items, kind, frame) {
    const made = [];
    for (const [worker, told] of Map.groupBy(items, (item) => item.worker)) {
      const key = `${kind} ${worker}`;
      const last = seen.get(key) ?? 0;
      const unseen = told.filter((item) => item.number > last);
      if (!unseen.length) continue;
      const skipped = unseen[0].number - last - 1;
      seen.set(key, unseen.at(-1).number);
      const rowsMade = unseen.map((item) => (kind === "failure" ? failure(item, frame, traceUrl) : transition(item, frame)));
      if (skipped > 0) {
        const at = rowsMade[0].at - 0.001;
        rowsMade.push({ ...note(frame, `${count(skipped)} earlier ones are not shown`, kind), at });
      }
      made.push(...rowsMade);
    }
    return made;
  }

  /** One row for each run; it is updated while the run lasts. */
  function freshRuns(frame) {
    const made = [];
    const now = new Map();
    for (const run of frame.refusals) {
      const key = `${run.outcome} ${run.method} ${run.route} ${run.cause}`;
      let known = runs.get(key);
      if (!known || run.began > known.last + RUN_ENDS) {
        known = refusal(run);
        made.push(known);
      }
      known.last = run.last;
      known.tell(run);
      now.set(key, known);
    }
    runs = now;
    return made;
  }

  function release() {
    if (held.length) {
      rows = [...held, ...rows].sort((a, b) => b.at - a.at);
      const room = { ...KEPT };
      rows = rows.filter((row) => {
        const stays = room[row.kind]-- > 0;
        if (!stays) row.node.remove();
        return stays;
      });
      let before = null;
      for (const row of rows) {
        const next = before ? before.nextSibling : list.firstChild;
        if (next !== row.node) list.insertBefore(row.node, next);
        before = row.node;
      }
      for (const row of held) choose(row);
      held = [];
    }
    empty.hidden = rows.some((row) => !row.node.hidden);
    setText(empty, rows.length ? "Nothing here matches." : "Nothing has failed and no circuit has moved so far.");
  }

  function choose(row) {
    const kind = new FormData(form).get("kind");
    const wanted = filter.value.trim().toLowerCase();
    const ofKind = kind === "all" || kind === row.kind || (kind === "failure" && row.kind === "refusal");
    row.node.hidden = !ofKind || !row.node.textContent.toLowerCase().includes(wanted);
  }

  function chooseAll() {
    rows.forEach(choose);
    release();
  }

  function tell(frame) {
    const waiting = paused ? ` · paused, ${count(held.length)} new` : "";
    const refused = frame.refusals.reduce((sum, run) => sum + run.count, 0);
    const turnedAway = refused ? ` · ${count(refused)} refused lately` : "";
    setText(total, `${count(frame.failed)} failed request${frame.failed === 1 ? "" : "s"} since the start${turnedAway}${waiting}`);
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
  return row("transition", item.at, item.new, what, move, item.reason + workerOf(item, frame), []);
}

function failure(item, frame, traceUrl) {
  const what = el("span", { class: "what" }, icon("failed"), OUTCOMES[item.outcome].split(" ")[0]);
  const request = `${item.method} ${item.path}`;
  const cause = `${item.status} · ${latency(item.duration)}${item.cause ? ` · ${item.cause}` : ""}${workerOf(item, frame)}`;
  const ids = [copied(item.requestId, "request id")];
  if (item.traceId) ids.push(copied(item.traceId, "trace id", "trace"));
  if (item.traceId && traceUrl) {
    const href = traceUrl.replaceAll("{trace_id}", encodeURIComponent(item.traceId));
    ids.push(el("a", { href, "aria-label": `Open the trace ${item.traceId}`, title: "Open the trace" }, "↗"));
  }
  const made = row("failure", item.at, "", what, request, cause, ids);
  made.node.dataset.outcome = item.outcome;
  return made;
}

function workerOf(item, frame) {
  return frame.workers > 1 ? ` · worker ${item.workerNumber}` : "";
}

function refusal(run) {
  const number = el("b");
  const what = el("span", { class: "what" }, icon("isolated"), number);
  const cause = el("span");
  const id = el("span");
  const made = row("refusal", run.began, "", what, `${run.method} ${run.route}`, cause, [id]);
  made.node.dataset.outcome = run.outcome;
  let shown = "";
  made.tell = (now) => {
    setText(number, `${count(now.count)} ${now.outcome}`);
    setText(cause, `${now.status}${now.cause ? ` · ${now.cause}` : ""} · in ${span(now.last - now.began)}, the last at ${clockTime(now.last)}`);
    if (shown !== now.requestId && !id.contains(document.activeElement)) id.replaceChildren(copied(now.requestId, "request id"));
    shown = now.requestId;
  };
  return made;
}

function note(frame, text, kind = "note") {
  return row(kind, frame.time, "", el("span", { class: "what muted" }, "…"), text, "", []);
}

function row(kind, at, state, what, subject, cause, ids) {
  const node = el(
    "li",
    { "data-kind": kind, "data-state": state },
    el("time", { datetime: new Date(at * 1000).toISOString() }, clockTime(at)),
    what,
    el("span", { class: "path" }, subject),
    el("span", { class: "cause" }, cause),
    el("span", { class: "id" }, ...ids),
  );
  return { kind, at, node };
}
