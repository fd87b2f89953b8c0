import { count, latency, rate, share } from "./format.js";
import { bar, plain } from "./upstream.js";

const ALARMING = 0.05;
const FULL = 0.8;
const LATE = 0.1;
const MIB = 1024 * 1024;

/** The row of the service itself, with outbox and cluster if they are on. */
export function serviceRow(box) {
  const requests = plain("Requests");
  const times = plain("Latency");
  const inFlight = bar("In flight");
  const calls = bar("Upstream calls");
  const refused = plain("Turned away");
  const machine = plain("Processor");
  const lag = plain("Event loop lag");
  const outbox = plain("Outbox");
  const cluster = plain("Cluster");
  const gauges = [requests, times, inFlight, calls, refused, machine, lag, outbox, cluster];
  box.append(...gauges.map((gauge) => gauge.node));

  return function update(frame) {
    const { service } = frame;
    const { p50, p95, p99 } = service.latency;
    requests.update(`${rate(frame.rate)} /s`, `${share(service.errorShare)} end with an error or are refused`, service.errorShare >= ALARMING);
    times.update(latency(p50), `p50; p95 ${latency(p95)}, p99 ${latency(p99)}, refusals aside`);
    const part = service.inFlight / (service.maxInFlight || 1);
    inFlight.update(`${count(service.inFlight)} of ${count(service.maxInFlight)}`, "requests to the API", part, part >= FULL);
    const { upstream } = frame;
    const busy = upstream.inFlight / (upstream.limit || 1);
    const waiting = upstream.waiting ? `${count(upstream.waiting)} more wait for their turn` : "nobody waits";
    calls.update(`${count(upstream.inFlight)} of ${count(upstream.limit)}`, waiting, busy, busy >= FULL);
    refused.update(`${rate(service.shed + service.limited)} /s`, `${rate(service.shed)} as too many, ${rate(service.limited)} over their client’s rate`, service.shed > 0);
    machine.update(`${share(service.cpu)} of a core`, `${count(service.memory / MIB)} MiB of memory${frame.workers > 1 ? `, all ${frame.workers} workers` : ""}`);
    lag.update(latency(service.loopLag), "at worst in the last 15 s", service.steadyLag >= LATE);
    outbox.node.hidden = !frame.outbox;
    if (frame.outbox) outbox.update(`${count(frame.outbox.pending)} queued`, `the oldest for ${latency(frame.outbox.oldest)}`);
    cluster.node.hidden = !frame.cluster;
    if (frame.cluster) {
      const { joined, nodes } = frame.cluster;
      cluster.update(joined ? `${count(nodes)} nodes` : "alone", joined ? "all workers are in it" : "not all workers are in it", !joined);
    }
  };
}
