// Node's own fetch and a small breaker written by hand: the peer with the fewest dependencies.
import pino from "pino";
import { UpstreamError, serve } from "./server.js";

class CircuitBreaker {
  #failures = [];
  #openedAt = null;
  #probing = false;

  constructor(failures, within, cooldown) {
    this.failures = failures;
    this.within = within;
    this.cooldown = cooldown;
  }

  async call(action) {
    const probe = this.#admit();
    try {
      const result = await action();
      if (probe) this.#openedAt = null;
      return result;
    } catch (error) {
      if (error.statusCode !== 404) this.#failed(probe);
      throw error;
    } finally {
      if (probe) this.#probing = false;
    }
  }

  #admit() {
    if (this.#openedAt === null) return false;
    if (this.#probing || performance.now() - this.#openedAt < this.cooldown) {
      throw new UpstreamError("the circuit is open", 503);
    }
    this.#probing = true;
    return true;
  }

  #failed(probe) {
    const now = performance.now();
    this.#failures = this.#failures.filter((at) => now - at <= this.within);
    this.#failures.push(now);
    if (probe || this.#failures.length >= this.failures) {
      this.#openedAt = now;
      this.#failures = [];
    }
  }
}

async function call(path, body) {
  let reply;
  try {
    reply = await fetch(process.env.UPSTREAM_URL + path, {
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json" } : undefined,
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(2_000),
    });
    if (reply.ok) return await reply.json();
  } catch (error) {
    throw new UpstreamError(error.message, error.name === "TimeoutError" ? 504 : 502);
  }
  await reply.body?.cancel();
  const status = reply.status === 404 || reply.status === 503 ? reply.status : 502;
  throw new UpstreamError(`the upstream answered ${reply.status}`, status);
}

const cooldown = Number(process.env.BREAKER_COOLDOWN ?? 10) * 1000;
function guarded(action, failures, within) {
  const breaker = new CircuitBreaker(failures, within, cooldown);
  return (argument) => breaker.call(() => action(argument));
}

const api = {
  getUsers: guarded(() => call("/getUsers"), 20, 10_000),
  getEvents: guarded(() => call("/getEvents"), 20, 10_000),
  getUserById: guarded((id) => call(`/getUserById/${id}`), 20, 10_000),
  getEventById: guarded((id) => call(`/getEventById/${id}`), 20, 10_000),
  addEvent: guarded((event) => call("/addEvent", event), 3, 30_000),
};

await serve(api, pino());
