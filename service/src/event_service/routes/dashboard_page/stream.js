// The feed of frames: says whether its news is live, stale or lost, and reconnects by itself.

const STALE_AFTER = 2.5;
const RETRY_EVERY = 1500;

/** Calls `onFrame(frame)` for each frame and `onLink(link)` when the link's state changes. */
export function follow(path, { onFrame, onLink }) {
  let source;
  let link = "waiting";
  let heard = performance.now();

  function become(next) {
    if (next === link) return;
    link = next;
    onLink(link);
  }

  function connect() {
    source = new EventSource(path);
    source.onmessage = (message) => {
      heard = performance.now();
      onFrame(JSON.parse(message.data));
      become("live");
    };
    source.onerror = async () => {
      if (link !== "waiting") become("lost");
      if (source.readyState !== EventSource.CLOSED) return;
      // The browser gives up for good on an answer other than a stream.
      if (await signedOut()) location.reload();
      setTimeout(connect, RETRY_EVERY);
    };
  }

  const age = () => (performance.now() - heard) / 1000;
  setInterval(() => {
    if (link === "live" && age() > STALE_AFTER) become("stale");
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
