"""What each problem means and what a client should do about it, for its page and the docs."""

from typing import NamedTuple


class Guide(NamedTuple):
    meaning: str
    advice: str


GUIDE: dict[str, Guide] = {
    "invalid-request": Guide(
        "The id, the query, a header or the JSON of the request is malformed.",
        "Correct the request; sent again as it is, it will fail again.",
    ),
    "validation-failed": Guide(
        "The body is JSON, but not of the shape that is asked for. `errors` has every fault, each "
        "with the path to the member and what the member must be.",
        "Correct the members that are named; sent again as it is, it will fail again.",
    ),
    "unsupported-media-type": Guide(
        "The body is not announced as plain JSON in UTF-8.",
        "Send `Content-Type: application/json` and no `Content-Encoding`.",
    ),
    "payload-too-large": Guide(
        "The body has more than 64 KiB.",
        "Send less: title and description have bounds far below that.",
    ),
    "request-timeout": Guide(
        "The request's body did not arrive within the time that a request has.",
        "Send the whole body at once; try again over a better connection.",
    ),
    "unauthorized": Guide(
        "This is for operators, and the request does not show that it comes from one.",
        "Send the operators' token: `Authorization: Bearer <token>`.",
    ),
    "forbidden": Guide(
        "A page of another site asked for something that only our own pages may ask for.",
        "Use the dashboard of this service itself.",
    ),
    "not-found": Guide(
        "There is nothing at this path.",
        "Compare the path with the list in the documentation; paths are case-sensitive and have "
        "no slash at their end.",
    ),
    "method-not-allowed": Guide(
        "The path exists, but does not answer to this method.",
        "Use one of the methods in the `Allow` header.",
    ),
    "idempotency-key-reused": Guide(
        "This `Idempotency-Key` came before, with another body.",
        "Use a new key for each new event; send a retry with the body of the first try.",
    ),
    "user-not-found": Guide(
        "The events API does not know the user.",
        "Do not try again with the same id; list the users to see which there are.",
    ),
    "upstream-rejected": Guide(
        "The events API refused the new event for good: its own rules are stricter than ours, or "
        "the `Idempotency-Key` came with another event before. `upstream_status` is its answer.",
        "Do not repeat the call as it is. Correct the event, and send it with a new "
        "`Idempotency-Key`.",
    ),
    "upstream-conflict": Guide(
        "The events API says that the new event conflicts with what it has, such as an event of "
        "the same id.",
        "Do not repeat the call. List the user's events to see whether the event is there.",
    ),
    "delivery-not-found": Guide(
        "No event was accepted under this id, it is another client's, or it is forgotten: a "
        "delivered one after a day, any other after 30 days.",
        "Compare the id with the `Location` that the service gave, and send the same API key.",
    ),
    "outbox-unavailable": Guide(
        "The place where events wait for their delivery does not work: its disk is full or fails, "
        "or its database cannot be reached. The event was not accepted.",
        "Try again after as many seconds as `Retry-After` says with the same `Idempotency-Key`, or "
        "without `Prefer: respond-async`, which needs no outbox.",
    ),
    "rate-limited": Guide(
        "The client sent more requests than its rate allows. `RateLimit-Policy` says how many it "
        "may send in how many seconds, `RateLimit` how many are left.",
        "Wait for as many seconds as `Retry-After` says, then go on more slowly.",
    ),
    "internal-error": Guide(
        "The service has a bug.",
        "Tell the operators the `request_id`; trying again may or may not help.",
    ),
    "upstream-error": Guide(
        "The events API behind this service failed: it answered with an error or with something "
        "that makes no sense, or it broke the connection.",
        "A read may be tried again after a moment. A write too, with the same `Idempotency-Key`, "
        "so that nothing is added twice.",
    ),
    "upstream-unavailable": Guide(
        "The events API behind this service asked for a pause.",
        "Wait for as many seconds as `Retry-After` says, then try again, a write with the same "
        "`Idempotency-Key`.",
    ),
    "circuit-open": Guide(
        "The events API behind this service failed so often, or asked for so long a pause, that it "
        "is left alone for a while. "
        "`breaker` names the operation. The request was refused without being passed on.",
        "Wait for as many seconds as `Retry-After` says, then try again.",
    ),
    "overloaded": Guide(
        "The service has as many requests in hand as it can serve in time, or as many events that "
        "wait for their delivery as it may keep. This one was refused before anything was done "
        "for it.",
        "Wait for as many seconds as `Retry-After` says, and a random part of a second more.",
    ),
    "upstream-timeout": Guide(
        "The events API behind this service took longer than a request may take. A write may or "
        "may not have happened.",
        "Try again after a moment, a write with the same `Idempotency-Key`, so that nothing is "
        "added twice.",
    ),
}
