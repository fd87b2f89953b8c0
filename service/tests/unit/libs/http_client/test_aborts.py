import asyncio
import os
import random
from collections import Counter

import pytest

from event_service.libs.http_client import HttpClientError

from .wires import client_of, fetch, peer, until

pytestmark = pytest.mark.anyio

# Longer in the gate, where nobody waits for it.
CALLS = int(os.environ.get("ABORTED_CALLS", "4000"))
AT_ONCE = 60
CONNECTIONS = 40


def unruly(chance):
    """A peer that hangs up, resets, dawdles, and answers in pieces, late or twice."""

    async def script(call):
        body = call.target.encode() * chance.choice((1, 1, 1, 400))
        match chance.randrange(12):
            case 0:
                call.hang_up()
            case 1:
                await call.say(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + body[:20])
                call.reset()
            case 2:
                reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                step = 1 + len(reply) // 5
                for at in range(0, len(reply), step):
                    await call.say(reply[at : at + step])
                    await asyncio.sleep(0)
            case 3:
                await asyncio.sleep(chance.random() / 200)
                await call.answer(body)
            case 4:
                await call.answer(body, fields=["Connection: close"])
                call.hang_up()
            case 5:
                reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
                await call.say(2 * reply)
            case _:
                await call.answer(body)

    return script


async def outcome_of(client, number, chance):
    """Call for this number, and give up at a random moment in half of the cases."""
    limit = chance.choice((0.002, 5.0))
    call = asyncio.create_task(fetch(client, f"/{number}.", time_limit=limit))
    if chance.random() < 0.5:
        for _ in range(chance.randrange(12)):
            await asyncio.sleep(0)
        call.cancel()
    try:
        status, body = await call
    except HttpClientError as exc:
        return type(exc).__name__
    except asyncio.CancelledError:
        return "cancelled"
    assert status == 200
    assert body.replace(b"/%d." % number, b"") == b"", (number, body)
    return "ok"


async def test_no_reply_reaches_another_caller_however_many_give_up():
    """Every 200 holds the id that its own caller asked for, and no connection is lost."""
    chance = random.Random(4)
    outcomes: Counter[str] = Counter()
    numbers = iter(range(CALLS))

    async def caller():
        for number in numbers:
            outcomes[await outcome_of(client, number, chance)] += 1

    async with (
        peer(unruly(chance)) as server,
        client_of(server.url, connections=CONNECTIONS) as client,
    ):
        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        await until(lambda: server.open <= client.connections <= CONNECTIONS)
        assert client.waiting == 0
        server.script = lambda call: call.answer(call.target.encode())
        found = await asyncio.gather(*(fetch(client, f"/{n}") for n in range(200)))
        assert found == [(200, b"/%d" % n) for n in range(200)]
    assert sum(outcomes.values()) == CALLS
    assert outcomes["ok"] > CALLS / 5
    assert outcomes["cancelled"] > CALLS / 10
    assert outcomes["Broken"] > CALLS / 100
    assert outcomes["TimedOut"] > CALLS / 1000
