import { numberWord, rate, remaining, share, span } from "./format.js";

// Below this share, and this many requests a second, failures are no news for the banner.
const WORTH_SAYING = 0.05;
const ENOUGH = 0.5;

/** The state of things, in one sentence and one of the states that have a colour and an icon. */
export function describe(frame, elapsed) {
  const troubled = frame.breakers.filter((breaker) => breaker.state !== "closed");
  if (troubled.length === 1) return { state: troubled[0].state, text: one(troubled[0], elapsed) };
  if (troubled.length > 1) return { state: worst(troubled), text: several(troubled, elapsed) };
  const all = `All ${numberWord(frame.breakers.length)} circuits are closed`;
  const failing = frame.endpoints
    .filter((each) => each.errorShare >= WORTH_SAYING && each.rate >= ENOUGH)
    .sort((a, b) => b.errorShare - a.errorShare)[0];
  if (failing) {
    return { state: "failing", text: `${all}, but ${share(failing.errorShare)} of ${failing.route} fails` };
  }
  const traffic = frame.rate ? `${rate(frame.rate)} requests/s` : "no requests at the moment";
  return { state: "closed", text: `${all}; ${traffic}` };
}

/** What a screen reader is told when a breaker changes its state: no numbers that tick. */
export function announce(breaker, reason) {
  const word = { closed: "closed", open: "open", half_open: "half-open", isolated: "isolated" };
  return `${breaker.name} is now ${word[breaker.state]}${reason ? `: ${reason}` : ""}.`;
}

/** When the next call is let in, or null if that cannot be said. */
export function nextCanary(breaker, elapsed) {
  if (breaker.state !== "open") return null;
  return Math.max(0, breaker.retryAfter - elapsed);
}

function one(breaker, elapsed) {
  const since = span(breaker.inStateFor + elapsed);
  switch (breaker.state) {
    case "open": {
      const wait = nextCanary(breaker, elapsed);
      const trouble = longTrouble(breaker, elapsed);
      const next = wait > 0 ? `next canary in ${remaining(wait)}` : "the next call is its canary";
      return `${breaker.name} is open for ${since}${trouble}; ${next}`;
    }
    case "half_open":
      return breaker.probes
        ? `${breaker.name} is half-open; its canary is in flight`
        : `${breaker.name} is half-open; the next call is its canary`;
    default:
      return `${breaker.name} is isolated by hand for ${since} and refuses every call`;
  }
}

/** A circuit that opened again has been in trouble for longer than it is open. */
function longTrouble(breaker, elapsed) {
  if (breaker.troubledFor < breaker.inStateFor + 1) return "";
  return ` (in trouble for ${span(breaker.troubledFor + elapsed)})`;
}

function several(breakers, elapsed) {
  const named = (state, word) => {
    const names = breakers.filter((breaker) => breaker.state === state).map((breaker) => breaker.name);
    if (!names.length) return [];
    const last = names.pop();
    return [names.length ? `${names.join(", ")} and ${last} are ${word}` : `${last} is ${word}`];
  };
  const states = [
    ...named("open", "open"),
    ...named("half_open", "half-open"),
    ...named("isolated", "isolated"),
  ].join(", ");
  const waits = breakers.map((breaker) => nextCanary(breaker, elapsed)).filter((wait) => wait !== null);
  if (!waits.length) return states;
  const next = Math.min(...waits);
  return `${states}; ${next > 0 ? `next canary in ${remaining(next)}` : "the next call is a canary"}`;
}

function worst(breakers) {
  return ["open", "half_open", "isolated"].find((state) => breakers.some((each) => each.state === state));
}

