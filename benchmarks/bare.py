"""The least that the service's own server and client can cost: an app that does nothing else.

`GET /livez` and every POST get an empty object, the POST once its body has come; any other path's
last part is asked of the upstream as a user, whose bytes are passed on.
"""

import os
from datetime import timedelta

from granian import Granian
from granian.constants import HTTPModes, Interfaces, Loops
from granian.log import LogLevels
from pyreqwest.client import Client, ClientBuilder

URL = f"{os.environ['UPSTREAM_URL']}/getUserById/"
clients: list[Client] = []


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
    if not clients:
        clients.append(ClientBuilder().no_proxy().timeout(timedelta(seconds=2)).build())
    reply = await clients[0].get(URL + user_id).build().send()
    return bytes(await reply.bytes())


if __name__ == "__main__":
    Granian(
        "bare:app",
        interface=Interfaces.ASGINL,
        port=int(os.environ["PORT"]),
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        websockets=False,
        backlog=4096,
        log_level=LogLevels.warning,
    ).serve()
