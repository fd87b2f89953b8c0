"""What each problem means and what a client should do, for the problem's page and the docs."""

from typing import NamedTuple


class Guide(NamedTuple):
    meaning: str
    advice: str


GUIDE: dict[str, Guide] = {
    "invalid-request": Guide(
        "The id, the query, a header or the JSON of the request is malformed.",
        "Correct the request; the same request will fail again.",
    ),
    "validation-failed": Guide(
        "The body is JSON, but does not match the schema. `errors` lists every fault with the path "
        "of the member and what the member must be.",
        "Correct these members; the same request will fail again.",
    ),
    "unsupported-media-type": Guide(
        "The request's headers do not say that the body is plain JSON in UTF-8.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "payload-too-large": Guide(
        "The body is larger than 64 KiB.",
        "Send less: the limits of title and description are far below that.",
    ),
    "request-timeout": Guide(
        "The request's body did not arrive before the request's deadline.",
        "Send the whole body at once; try again over a better connection.",
    ),
    "unauthorized": Guide(
        "Only operators may do this, and the request has no valid operators' token.",
        "Send the operators' token: `Authorization: Bearer <token>`.",
    ),
    "forbidden": Guide(
        "Only this service's own pages may send this request; it came from another site.",
        "Use the dashboard of this service.",
    ),
    "not-found": Guide(
        "There is nothing at this path.",
        "Compare the path with the list in the documentation. Paths are case-sensitive and have "
        "no trailing slash.",
    ),
    "method-not-allowed": Guide(
        "The path exists, but does not support this method.",
        "Use one of the methods in the `Allow` header.",
    ),
    "idempotency-key-reused": Guide(
        "This `Idempotency-Key` was used before with another body.",
        "Use a new key for each new event; retry with the same body as in the first attempt.",
    ),
    "user-not-found": Guide(
        "The events API does not know the user.",
        "Do not try again with the same id; list the users to see the known ids.",
    ),
    "upstream-rejected": Guide(
        "The events API refused the new event for good: its own rules are stricter than ours, or "
        "the `Idempotency-Key` was used for another event. `upstream_status` is its answer.",
        "Do not repeat the same request. Correct the event, and send it with a new "
        "`Idempotency-Key`.",
    ),
    "upstream-conflict": Guide(
        "The events API says that the new event conflicts with its data, for example with an event "
        "that has the same id.",
        "Do not repeat the request. List the user's events to see whether the event is there.",
    ),
    "delivery-not-found": Guide(
        "No event was accepted under this id, or it belongs to another client, or it was deleted: "
        "delivered events are deleted after a day, all others after 30 days.",
        "Compare the id with the `Location` that the service sent, and send the same API key.",
    ),
    "outbox-unavailable": Guide(
        "The outbox, which stores events until they are delivered, does not work: its disk is full "
        "or fails, or its database cannot be reached. The event was not accepted.",
        "Wait for `Retry-After` seconds and try again with the same `Idempotency-Key`, or send the "
        "event without `Prefer: respond-async`, which needs no outbox.",
    ),
    "rate-limited": Guide(
        "The client sent more requests than its rate allows. `RateLimit-Policy` says how many it "
        "may send in how many seconds, `RateLimit` how many are left.",
        "Wait for `Retry-After` seconds, then send requests more slowly.",
    ),
    "internal-error": Guide(
        "The service has a bug.",
        "Tell the operators the `request_id`. Trying again may or may not help.",
    ),
    "upstream-error": Guide(
        "The events API behind this service failed: it answered with an error or an invalid reply, "
        "or it broke the connection.",
        "Try again after a moment. Send a write with the same `Idempotency-Key`, so that nothing "
        "is added twice.",
    ),
    "upstream-unavailable": Guide(
        "The events API behind this service asked for a pause.",
        "Wait for `Retry-After` seconds, then try again. Send a write with the same "
        "`Idempotency-Key`.",
    ),
    "circuit-open": Guide(
        "The events API behind this service failed too often, or asked for a long pause, so the "
        "service does not call it for a while. `breaker` names the operation. The request was "
        "refused without a call.",
        "Wait for `Retry-After` seconds, then try again.",
    ),
    "overloaded": Guide(
        "The service has as many requests in flight as it can serve in time, or as many events "
        "waiting for delivery as it may keep. This request was refused before any work was done.",
        "Wait for `Retry-After` seconds plus a random fraction of a second, then try again.",
    ),
    "upstream-timeout": Guide(
        "The events API behind this service did not answer before the request's deadline. A write "
        "may or may not have been stored.",
        "Try again after a moment. Send a write with the same `Idempotency-Key`, so that nothing "
        "is added twice.",
    ),
}
