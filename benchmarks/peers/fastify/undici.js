// The strongest Node.js peer: an undici pool and an opossum breaker for each upstream operation.
import CircuitBreaker from "opossum";
import pino from "pino";
import { Pool } from "undici";
import { UpstreamError, serve } from "./server.js";

const timeout = 2_000;
const pool = new Pool(process.env.UPSTREAM_URL, {
  connectTimeout: timeout,
  headersTimeout: timeout,
  bodyTimeout: timeout,
});

async function call(path, body) {
  let reply;
  try {
    reply = await pool.request({
      path,
      method: body ? "POST" : "GET",
      headers: body ? { "content-type": "application/json" } : undefined,
      body: body && JSON.stringify(body),
    });
  } catch (error) {
    throw new UpstreamError(error.message, error.code?.endsWith("TIMEOUT") ? 504 : 502);
  }
  if (reply.statusCode === 200) return reply.body.json();
  await reply.body.dump();
  const status = reply.statusCode === 404 || reply.statusCode === 503 ? reply.statusCode : 502;
  throw new UpstreamError(`the upstream answered ${reply.statusCode}`, status);
}

const breakerOptions = {
  timeout: false, // the pool has timeouts already; another timer a call would cost
  resetTimeout: Number(process.env.BREAKER_COOLDOWN ?? 10) * 1000,
  errorFilter: (error) => error.statusCode === 404,
};
const reading = {
  ...breakerOptions,
  rollingCountTimeout: 10_000,
  volumeThreshold: 20,
  errorThresholdPercentage: 50,
};
const writing = {
  ...breakerOptions,
  rollingCountTimeout: 30_000,
  volumeThreshold: 3,
  errorThresholdPercentage: 1,
};

function guarded(name, action, options) {
  const breaker = new CircuitBreaker(action, { ...options, name });
  return (argument) => breaker.fire(argument);
}

const api = {
  getUsers: guarded("getUsers", () => call("/getUsers"), reading),
  getEvents: guarded("getEvents", () => call("/getEvents"), reading),
  getUserById: guarded("getUserById", (id) => call(`/getUserById/${id}`), reading),
  getEventById: guarded("getEventById", (id) => call(`/getEventById/${id}`), reading),
  addEvent: guarded("addEvent", (event) => call("/addEvent", event), writing),
};

// Lines are written in batches, off the request's path, as pino's documentation advises.
const lines = pino.destination({ dest: 1, sync: false, minLength: 4096, periodicFlush: 1000 });
await serve(api, pino(lines));
