// Receives frames, as changes to the previous one. Reports whether they are live, stale or lost, and
// reconnects.

import { applied } from "./changes.js";

// Seconds. A connection that is silent for longer may be dead.
const STALE_AFTER = 2.5;
const DEAD_AFTER = 10;
const RETRY_AFTER = 1.5;

/** Calls `onFrame(frame)` for each frame and `onLink(link)` when the link's state changes. */
export function follow(path, { onFrame, onLink }) {
  let source;
  let link = "waiting";
  let heard = performance.now();
  let dialled;
  let frame = null;

  function become(next) {
    if (next === link) return;
    link = next;
    onLink(link);
  }

  function take(next) {
    frame = next;
    heard = performance.now();
    onFrame(frame);
    become("live");
  }

  function connect() {
    dialled = performance.now();
    source?.close();
    source = new EventSource(path);
    source.onmessage = (message) => take(JSON.parse(message.data));
    source.addEventListener("change", (message) => take(applied(frame, JSON.parse(message.data))));
    source.onerror = async () => {
      if (link !== "waiting") become("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      // After an answer that is not a stream, the browser does not reconnect by itself.
      if (await signedOut()) location.reload();
      setTimeout(connect, RETRY_AFTER * 1000);
    };
  }

  const since = (moment) => (performance.now() - moment) / 1000;
  const age = () => since(heard);
  setInterval(() => {
    if (link === "live" && age() > STALE_AFTER) become("stale");
    if (link === "stale" && Math.min(age(), since(dialled)) > DEAD_AFTER) connect();
  }, 500);
  connect();
  return { age };
}

async function signedOut() {
  try {
    return (await fetch("/dashboard", { cache: "no-store" })).status === 401;
  } catch {
    return false;
  }
}
