import { copied, el, icon, setAttribute, setText } from "./dom.js";
import { STATES, count, latency, remaining, ruleText, share, span } from "./format.js";
import { longTrouble, where } from "./sentence.js";

const CHANGES_SHOWN = 3;

/** The tile of one breaker. `act(name, action)` is null without controls. */
export function breakerTile(first, act) {
  const use = icon(first.state);
  const word = el("span");
  const since = el("p", { class: "since" });
  const fact = el("p", { class: "fact" });
  const track = el("div", { class: "track" });
  const why = lastFailure();
  const changes = el("ol", { class: "changes" });
  const buttons = act ? controls(first.name, act) : null;
  const title = el("h3", { class: "name" }, first.name);
  const node = el(
    "article",
    { class: "tile circuit", "data-breaker": first.name, "aria-label": `Circuit ${first.name}` },
    el("header", {}, title, el("p", { class: "badge" }, use, word)),
    since,
    fact,
    track,
    why.node,
    changes,
  );
  if (buttons) node.append(buttons.node);
  let breaker = first;

  function update(next, { transitions, time }) {
    breaker = next;
    setAttribute(node, "data-state", breaker.state);
    setAttribute(use.firstChild, "href", `#icon-${breaker.state}`);
    setText(word, STATES[breaker.state]);
    const own = transitions.filter((each) => each.breaker === breaker.name).slice(-CHANGES_SHOWN).reverse();
    changes.replaceChildren(...(own.length ? own.map((each) => change(each, time)) : [el("li", { class: "muted" }, "No transitions yet")]));
    buttons?.update(breaker);
    why.update(breaker);
    tick(time);
  }

  function tick(now) {
    setText(since, sentence(breaker, now));
    // A closed circuit without failures shows only its name.
    node.classList.toggle("quiet-circuit", breaker.state === "closed" && !breaker.rules[0].bad && !breaker.failedAt.length);
    why.tick(now);
    show[breaker.state](breaker, now, fact, track);
  }

  return { node, update, tick };
}

function sentence(breaker, now) {
  const time = span(now - breaker.since);
  const begin = breaker.state === "closed" ? "for" : `has been ${STATES[breaker.state].toLowerCase()} for`;
  const place = where(breaker);
  const shown = place && breaker.workers[breaker.state] < workersOf(breaker) ? place : "";
  return `${begin} ${time}${shown}${longTrouble(breaker, now)}`;
}

const workersOf = (breaker) => Object.values(breaker.workers).reduce((sum, each) => sum + each, 0);

/** The last failure: what, after how long, when, and in which request. */
function lastFailure() {
  const text = el("span");
  const id = el("span");
  const node = el("p", { class: "last", hidden: "" }, text, id);
  let last = null;

  function update(breaker) {
    const before = last;
    last = breaker.lastFailure;
    node.hidden = !last || breaker.state === "closed";
    if (!last || before?.requestId === last.requestId) return;
    id.replaceChildren(...(last.requestId ? [", request ", copied(last.requestId, "request id", `${last.requestId.slice(0, 13)}…`)] : []));
  }

  function tick(now) {
    if (!last) return;
    const took = last.duration === null ? "" : ` after ${latency(last.duration)}`;
    setText(text, `Last failure: ${last.what}${took}, ${span(now - last.at)} ago`);
  }

  return { node, update, tick };
}

const show = {
  closed(breaker, now, fact, track) {
    const rule = breaker.rules[0];
    const shown = rule.minimumCalls ? shareOfCalls(rule) : countOfFailures(rule);
    say(fact, shown.text, `Opens at ${ruleText(breaker)}`);
    fill(track, shown.meter, windowTrack(breaker, rule, now));
  },
  open(breaker, now, fact, track) {
    const left = Math.max(0, breaker.retryAt - now);
    const text = left > 0 ? `Next canary in ${remaining(left)}` : "The next call is the canary";
    say(fact, text, `${count(breaker.rejected)} calls refused since the start`);
    fill(track, meter(left / (breaker.retryAt - breaker.since), "var(--open)"));
  },
  half_open(breaker, now, fact, track) {
    const text = breaker.probes ? "Canary in flight" : "The next call is the canary";
    say(fact, text, "Success closes the circuit, failure opens it again", breaker.probes > 0);
    fill(track, null, null);
  },
  isolated(breaker, now, fact, track) {
    const left = breaker.releaseAt === null ? null : Math.max(0, breaker.releaseAt - now);
    say(fact, "Refuses every call", left === null ? "By hand, until it is released" : `By hand, for another ${remaining(left)}`);
    fill(track, null, null);
  },
};

function say(fact, text, more, canary = false) {
  if (fact.dataset.text === text + more) return;
  fact.dataset.text = text + more;
  fact.replaceChildren(...(canary ? [el("span", { class: "canary", "aria-hidden": "true" })] : []), text, el("small", {}, more));
}

function countOfFailures(rule) {
  const slots = el("div", { class: "slots", "aria-hidden": "true" });
  for (let n = 0; n < Math.min(rule.threshold, 20); n += 1) {
    slots.append(el("i", { class: n < rule.value ? "taken" : "" }));
  }
  const within = rule.window ? ` in ${rule.window} s` : "";
  return { text: `${rule.value} of ${rule.threshold} failures${within}`, meter: slots };
}

function shareOfCalls(rule) {
  const over = rule.window ? ` in ${rule.window} s` : "";
  const text = rule.calls
    ? `${share(rule.value)} of ${count(rule.calls)} call${rule.calls === 1 ? "" : "s"} failed`
    : `No calls${over}`;
  const bar = meter(rule.value, "var(--open)");
  const mark = el("b");
  mark.style.left = `${rule.threshold * 100}%`;
  bar.append(mark);
  return { text, meter: bar };
}

function meter(value, colour) {
  const bar = el("i");
  bar.style.width = `${Math.min(1, Math.max(0, value)) * 100}%`;
  bar.style.setProperty("--fill", colour);
  return el("div", { class: "meter", "aria-hidden": "true" }, bar);
}

/** The position of each failure in the window: new ones are at the right, and leave at the left. */
function windowTrack(breaker, rule, now) {
  if (!rule.window) return null;
  const box = el("div", { class: "window", "aria-hidden": "true" });
  for (const at of breaker.failedAt) {
    const left = 100 * (1 - (now - at) / rule.window);
    if (left < 0) continue;
    const dot = el("i");
    dot.style.left = `${left}%`;
    box.append(dot);
  }
  const scale = el("p", { class: "scale" }, el("span", {}, `${rule.window} s ago`), el("span", {}, "now"));
  return el("div", {}, box, scale);
}

function fill(track, ...parts) {
  track.replaceChildren(...parts.filter(Boolean));
}

function change(transition, now) {
  const move = el("span", { class: "move" }, `${STATES[transition.old]} → ${STATES[transition.new].toLowerCase()}`);
  return el("li", {}, move, el("time", {}, `${span(now - transition.at)} ago`), el("span", { class: "reason" }, transition.reason));
}

function controls(name, act) {
  const button = (action, text) => {
    const node = el("button", { type: "button", "aria-label": `${text} ${name}` }, text);
    node.addEventListener("click", () => act(name, node.dataset.action));
    node.dataset.action = action;
    return node;
  };
  const isolate = button("isolate", "Isolate");
  const node = el("div", { class: "buttons" }, button("trip", "Trip"), isolate, button("reset", "Reset"));

  function update(breaker) {
    const isolated = breaker.state === "isolated";
    const text = isolated ? "Release" : "Isolate";
    isolate.dataset.action = isolated ? "release" : "isolate";
    setText(isolate, text);
    setAttribute(isolate, "aria-label", `${text} ${name}`);
  }

  return { node, update };
}
