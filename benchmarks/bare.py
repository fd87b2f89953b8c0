"""The least that the service's own server and client can cost: an app that does nothing else.

`GET /livez` and every POST get an empty object, the POST once its body has come; any other path's
last part is asked of the upstream as a user, whose bytes are passed on. The process is set up as
`event-service serve` sets up its own.
"""

import os

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels

from event_service.libs.http_client import HttpClient, parse_base_url

client = HttpClient(parse_base_url(os.environ["UPSTREAM_URL"]), connections=65_535)


async def app(scope, receive, send) -> None:
    if scope["type"] != "http":
        return
    content = b"{}"
    if scope["method"] == "POST":
        await receive()
    elif scope["path"].startswith("/api/getEvents"):
        content = await user(scope["path"].rpartition("/")[2])
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def user(user_id: str) -> bytes:
    reply = await client.send("GET", f"/getUserById/{user_id}", time_limit=20)
    return await reply.read()


if __name__ == "__main__":
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    Granian(
        "bare:app",
        interface=Interfaces.ASGINL,
        port=int(os.environ["PORT"]),
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        backpressure=65_535,
        log_level=LogLevels.warning,
    ).serve()
