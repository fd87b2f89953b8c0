"""One user's events, each of which takes the upstream 500 ms: what does the whole take?"""

import http.client
import json
import math
import time

from benchmarks import data
from benchmarks.checks import WrongReply
from benchmarks.contenders import Server
from benchmarks.scenario import Figure, Figures, Site, fresh_key

SIZES = (10, 100, 1000)
DELAY = 0.5


def wall_seconds(server: Server, events: int) -> float:
    """The time one reply took, checked to be right. Raises WrongReply."""
    user_id = f"{fresh_key()}-{events}"
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    connection.connect()
    try:
        began = time.monotonic()
        connection.request("GET", f"/api/getEventsByUserId/{user_id}")
        reply = connection.getresponse()
        content = reply.read()
        took = time.monotonic() - began
    finally:
        connection.close()
    server.logged += 1
    if reply.status != 200 or json.loads(content) != data.events_of(user_id):
        raise WrongReply(f"{events} events: {reply.status} after {took:.1f} s: {content[:100]!r}")
    return took


def measure(_: Site, server: Server) -> Figures:
    """The second of two look-ups in a row: the first one opened the connections."""
    figures = {}
    for size in SIZES:
        try:
            wall_seconds(server, size)
            figures[f"events-{size}"] = Figure(wall_seconds(server, size) / DELAY)
        except WrongReply as error:
            figures[f"events-{size}"] = Figure(math.nan, reason=str(error))
    return figures
