// The HTTP edge that both Fastify peers share: validation, metrics, one log line a request.
import { randomUUID } from "node:crypto";
import Fastify, { LogController } from "fastify";
import { Histogram, collectDefaultMetrics, register } from "prom-client";

export class UpstreamError extends Error {
  constructor(message, statusCode) {
    super(message);
    this.statusCode = statusCode;
  }
}

const text = { type: "string" };
const params = {
  type: "object",
  properties: { id: { type: "string", pattern: "^[A-Za-z0-9_-]{1,64}$" } },
};
const user = {
  type: "object",
  properties: { id: text, name: text, events: { type: "array", items: text } },
};
const event = {
  type: "object",
  properties: { id: text, userId: text, title: text, description: text },
};
const newEvent = {
  type: "object",
  additionalProperties: false,
  required: ["userId", "title"],
  properties: {
    userId: params.properties.id,
    title: { type: "string", minLength: 1, maxLength: 200 },
    description: { type: "string", maxLength: 2000 },
  },
};
const added = { type: "object", properties: { success: { type: "boolean" }, id: text } };
const listOf = (items) => ({ 200: { type: "array", items } });

export async function serve(api, logger) {
  const app = Fastify({
    loggerInstance: logger,
    // Its own two lines a request make way for the one that the hook below writes.
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit: 64 * 1024,
    ajv: { customOptions: { removeAdditional: false } },
    forceCloseConnections: true,
  });
  collectDefaultMetrics();
  const duration = new Histogram({
    name: "http_request_duration_seconds",
    help: "Time from the request to the end of its reply",
    labelNames: ["method", "route", "status"],
  });

  app.addHook("onResponse", async (request, reply) => {
    const { method, url, routeOptions } = request;
    const route = routeOptions.url ?? "unmatched";
    const status = reply.statusCode;
    duration.observe({ method, route, status }, reply.elapsedTime / 1000);
    request.log.info({ method, path: url, route, status, duration_ms: reply.elapsedTime }, "request");
  });
  app.setErrorHandler((error, request, reply) => {
    const status = error.code === "EOPENBREAKER" ? 503 : (error.statusCode ?? 500);
    reply.code(status).send({ status, title: status === 500 ? "internal error" : error.message });
  });

  const unlogged = { logLevel: "silent" };
  app.get("/livez", unlogged, async () => ({ status: "ok" }));
  app.get("/metrics", unlogged, async (_, reply) => {
    reply.type(register.contentType);
    return register.metrics();
  });
  app.get("/api/getUsers", { schema: { response: listOf(user) } }, () => api.getUsers());
  app.get("/api/getEvents", { schema: { response: listOf(event) } }, () => api.getEvents());
  app.get(
    "/api/getEventsByUserId/:id",
    { schema: { params, response: listOf(event) } },
    async (request) => {
      const { events } = await api.getUserById(request.params.id);
      return Promise.all(events.map((id) => api.getEventById(id)));
    },
  );
  app.post(
    "/api/addEvent",
    { schema: { body: newEvent, response: { 200: added } } },
    async (request) => {
      const id = randomUUID();
      await api.addEvent({ ...request.body, id });
      return { success: true, id };
    },
  );

  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => app.close());
  await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT), backlog: 4096 });
}
