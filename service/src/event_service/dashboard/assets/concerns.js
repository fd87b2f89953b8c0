// Problems other than circuits, each with a sentence and its section of the run-book.

import { count, latency, rate, share, span } from "./format.js";

// Failures below this share, or below this rate per second, are not reported.
const WORTH_SAYING = 0.05;
const ENOUGH = 0.5;
// Slow means longer than usual by these seconds and this factor, in so many of the last ten seconds.
const SLOWER_BY = 0.1;
const SLOWER_TIMES = 2;
const SLOW_SECONDS = 3;
const LATELY = 10;
// Seconds with calls that are needed to know what is usual.
const KNOWN = 10;
const FULL = 0.8;
const LATE = 0.1;
const OLD = 60;

/** All problems, worst first. */
export function concerns(frame) {
  return [
    ...saturation(frame),
    ...errors(frame),
    ...slowness(frame),
    ...limits(frame),
    ...budget(frame),
    ...outbox(frame),
    ...cluster(frame),
  ];
}

function concern(text, section) {
  return { text, section };
}

const TOO_MUCH = "more-requests-than-it-can-take";

function saturation({ service, upstream }) {
  const found = [];
  if (service.shed > 0) {
    found.push(concern(`${rate(service.shed)} requests/s are refused as too many`, TOO_MUCH));
  } else if (service.inFlight >= FULL * service.maxInFlight && service.maxInFlight) {
    found.push(concern(`${count(service.inFlight)} of ${count(service.maxInFlight)} requests are in flight`, TOO_MUCH));
  }
  if (upstream.waiting && upstream.inFlight >= upstream.limit) {
    found.push(concern(`${count(upstream.waiting)} upstream calls wait for one of ${count(upstream.limit)} places`, "calls-wait-for-a-free-place"));
  }
  if (service.steadyLag >= LATE) {
    found.push(concern(`the event loop runs ${latency(service.steadyLag)} late`, "the-event-loop-runs-late"));
  }
  return found;
}

/** The worst error share, of requests that were carried out or of attempts hidden by retries. */
function errors(frame) {
  const open = new Set(frame.breakers.filter((each) => each.state !== "closed").map((each) => each.name));
  const routes = frame.endpoints.map((each) => {
    const carriedOut = each.rate - each.refused;
    return { rate: carriedOut, part: (each.rate * each.errorShare - each.refused) / carriedOut, of: each.route, fails: true };
  });
  const attempts = frame.upstream.operations
    .filter((each) => !open.has(each.name))
    .map((each) => ({ rate: each.rate, part: each.errorShare, of: each.name, fails: false }));
  const worst = [...routes, ...attempts]
    .filter((each) => each.rate >= ENOUGH && each.part >= WORTH_SAYING)
    .sort((a, b) => b.fails - a.fails || b.part - a.part)[0];
  if (!worst) return [];
  const text = worst.fails
    ? `${share(worst.part)} of ${worst.of} fails`
    : `${share(worst.part)} of the attempts at ${worst.of} fail, and are made again`;
  return [concern(text, "requests-or-attempts-fail")];
}

function slowness(frame) {
  const slow = frame.upstream.operations
    .map((operation) => ({ operation, usual: usual(operation) }))
    .filter(({ operation, usual }) => isSlow(operation, usual))
    .map(({ operation, usual }) => ({ operation, more: operation.latency.p95 - usual }))
    .sort((a, b) => b.more - a.more)[0];
  if (!slow) return [];
  const text = `${slow.operation.name} is ${latency(slow.more)} slower than usual`;
  return [concern(text, "the-upstream-is-slow")];
}

function isSlow(operation, usual) {
  if (usual === null || operation.latency.p95 === null) return false;
  const limit = Math.max(usual + SLOWER_BY, usual * SLOWER_TIMES);
  const slowSeconds = operation.p95.slice(-LATELY).filter((each) => each > limit).length;
  return operation.latency.p95 > limit && slowSeconds >= SLOW_SECONDS;
}

/** The usual p95 of the last quarter of an hour, or an estimate from the last two minutes. */
function usual(operation) {
  if (operation.normal !== null) return operation.normal;
  const known = operation.p95.slice(0, -LATELY).filter((each) => each !== null).sort((a, b) => a - b);
  return known.length >= KNOWN ? known[Math.floor(known.length / 4)] : null;
}

function limits({ service, rate: all }) {
  const part = service.limited / (all || 1);
  if (service.limited < ENOUGH || part < 2 * WORTH_SAYING) return [];
  return [concern(`${rate(service.limited)} requests/s are over their client’s rate`, "clients-are-over-their-rate")];
}

function budget({ upstream }) {
  return upstream.retriesLeft < 1 ? [concern("the retry budget is spent", "retries-use-up-their-budget")] : [];
}

function outbox(frame) {
  if (!frame.outbox || frame.outbox.oldest < OLD) return [];
  const { pending, oldest } = frame.outbox;
  const text = `the oldest of ${count(pending)} queued event${pending === 1 ? "" : "s"} waits for ${span(oldest)}`;
  return [concern(text, "events-wait-or-are-dead")];
}

function cluster(frame) {
  if (!frame.cluster || frame.cluster.joined) return [];
  return [concern("this server is alone: it has lost the cluster", "alone-in-the-cluster")];
}
