"""One user's events, each of which takes the upstream 500 ms: what does the whole take?"""

import http.client
import json
import math
import time
from statistics import median

from benchmarks import data
from benchmarks.checks import WrongReply
from benchmarks.contenders import Server
from benchmarks.plan import Plan
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


def measure(site: Site, server: Server) -> Figures:
    """The median of the plan's look-ups, fewer for whoever takes very long.

    One more goes before them: it opens the connections.
    """
    figures = {}
    for size in SIZES:
        try:
            figures[f"events-{size}"] = Figure(_typical_seconds(server, size, site.plan) / DELAY)
        except WrongReply as error:
            figures[f"events-{size}"] = Figure(math.nan, reason=str(error))
    return figures


def _typical_seconds(server: Server, size: int, plan: Plan) -> float:
    enough = time.monotonic() + plan.lookups * 2 * DELAY
    wall_seconds(server, size)
    took = [wall_seconds(server, size)]
    while len(took) < plan.lookups and time.monotonic() < enough:
        took.append(wall_seconds(server, size))
    return median(took)
