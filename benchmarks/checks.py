"""Are a server's replies right? Asked before and after every measurement."""

import json

from benchmarks import data
from benchmarks.contenders import Server


class WrongReply(Exception):
    pass


def expect(server: Server, method: str, path: str, wanted: object, body: object = None) -> None:
    status, content = server.request(method, path, body)
    if status != 200 or json.loads(content) != wanted:
        raise WrongReply(f"{method} {path}: {status} {content[:200]!r}")


def expect_status(server: Server, method: str, path: str, wanted: tuple[int, ...], body=None):
    status, content = server.request(method, path, body)
    if status not in wanted:
        raise WrongReply(f"{method} {path}: {status}, not {wanted}: {content[:200]!r}")
    return content


def check(server: Server, *, refuses_events: bool = False, lists: bool = True) -> None:
    """Every route, the validation and the metrics. Raises WrongReply.

    With `refuses_events` the upstream refuses new events, and so must the server. Without `lists`
    there are others in the lists as well.
    """
    if lists:
        expect(server, "GET", "/api/getUsers", data.USERS)
        expect(server, "GET", "/api/getEvents", data.EVENTS)
    for user_id in ("check-0", "check-1", "check-3"):
        path = f"/api/getEventsByUserId/{user_id}"
        expect(server, "GET", path, data.events_of(user_id))
    expect_status(server, "GET", "/api/getEventsByUserId/no%20id", (400, 422))
    expect_status(server, "POST", "/api/addEvent", (400, 422), {**data.NEW_EVENT, "more": 1})
    expect_status(server, "POST", "/api/addEvent", (400, 422), {**data.NEW_EVENT, "title": ""})
    if refuses_events:
        expect_status(server, "POST", "/api/addEvent", (503,), data.NEW_EVENT)
    else:
        reply = json.loads(expect_status(server, "POST", "/api/addEvent", (200,), data.NEW_EVENT))
        if reply["success"] is not True or not reply["id"]:
            raise WrongReply(f"POST /api/addEvent: {reply}")
    if b"http_request_duration_seconds_count{" not in expect_status(
        server, "GET", "/metrics", (200,)
    ):
        raise WrongReply("GET /metrics: no durations by route")


def check_log(server: Server) -> None:
    """One line a request at least. Call when the server has stopped. Raises WrongReply."""
    if server.process.lines < server.logged:
        raise WrongReply(f"{server.logged} requests but {server.process.lines} log lines")
