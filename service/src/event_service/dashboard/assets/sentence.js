import { concerns } from "./concerns.js";
import { numberWord, rate, remaining, span } from "./format.js";

// As many as people can read at a glance.
const TOLD = 3;

/** The banner: one sentence, a state with a colour and an icon, and the section of the run-book for
 * the worst problem. */
export function describe(frame, now) {
  const others = concerns(frame);
  const troubled = frame.breakers.filter((breaker) => breaker.state !== "closed");
  if (troubled.length) {
    const circuits = troubled.length === 1 ? one(troubled[0], now) : several(troubled, now);
    const also = others.length ? `; also ${listed(others)}` : "";
    return { state: worst(troubled), text: circuits + also, section: "a-circuit-stays-open" };
  }
  const all = `All ${numberWord(frame.breakers.length)} circuits are closed`;
  if (others.length) {
    return { state: "failing", text: `${all}, but ${listed(others)}`, section: others[0].section };
  }
  const traffic = frame.rate ? `${rate(frame.rate)} requests/s` : "no requests at the moment";
  return { state: "closed", text: `${all}; ${traffic}`, section: "" };
}

function listed(others) {
  const told = others.slice(0, TOLD).map((each) => each.text);
  if (others.length > TOLD) told.push(`${numberWord(others.length - TOLD)} more`);
  const last = told.pop();
  return told.length ? `${told.join(", ")} and ${last}` : last;
}

/** The text for screen readers when a breaker changes its state, without counting numbers. */
export function announce(breaker, reason) {
  const word = { closed: "closed", open: "open", half_open: "half-open", isolated: "isolated" };
  return `${breaker.name} is now ${word[breaker.state]}${reason ? `: ${reason}` : ""}.`;
}

/** When the next call is admitted, or null if that is unknown. */
export function nextCanary(breaker, now) {
  return breaker.retryAt === null ? null : Math.max(0, breaker.retryAt - now);
}

/** " in 1 of 2 workers"; empty with one worker. */
export function where(breaker) {
  const workers = Object.values(breaker.workers).reduce((sum, each) => sum + each, 0);
  return workers > 1 ? ` in ${breaker.workers[breaker.state]} of ${workers} workers` : "";
}

function one(breaker, now) {
  const since = span(now - breaker.since);
  const place = where(breaker);
  switch (breaker.state) {
    case "open": {
      const wait = nextCanary(breaker, now);
      const trouble = longTrouble(breaker, now);
      const next = wait > 0 ? `next canary in ${remaining(wait)}` : "the next call is its canary";
      return `${breaker.name} is open${place} for ${since}${trouble}; ${next}`;
    }
    case "half_open":
      return breaker.probes
        ? `${breaker.name} is half-open${place}; its canary is in flight`
        : `${breaker.name} is half-open${place}; the next call is its canary`;
    default:
      return `${breaker.name} is isolated by hand${place} for ${since} and refuses every call`;
  }
}

/** A circuit that opened again has been in trouble for longer than it has been open. */
export function longTrouble(breaker, now) {
  if (breaker.troubledSince === null || breaker.troubledSince > breaker.since - 1) return "";
  return ` (in trouble for ${span(now - breaker.troubledSince)})`;
}

function several(breakers, now) {
  const named = (state, word) => {
    const names = breakers
      .filter((breaker) => breaker.state === state)
      .map((breaker) => breaker.name + where(breaker));
    if (!names.length) return [];
    const last = names.pop();
    return [names.length ? `${names.join(", ")} and ${last} are ${word}` : `${last} is ${word}`];
  };
  const states = [
    ...named("open", "open"),
    ...named("half_open", "half-open"),
    ...named("isolated", "isolated"),
  ].join(", ");
  const waits = breakers.map((breaker) => nextCanary(breaker, now)).filter((wait) => wait !== null);
  if (!waits.length) return states;
  const next = Math.min(...waits);
  return `${states}; ${next > 0 ? `next canary in ${remaining(next)}` : "the next call is a canary"}`;
}

function worst(breakers) {
  return ["open", "half_open", "isolated"].find((state) => breakers.some((each) => each.state === state));
}
