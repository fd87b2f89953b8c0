"""The service in front of ordinary upstreams. What is found makes a table in docs/upstreams.md.

WRITE_DOCS=1 writes that table anew.
"""

import asyncio
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import pytest

from .processes import event_service
from .real_upstreams import BY_USER, REST_PATHS, UPSTREAMS, Upstream, running

PAGE = Path(__file__).parent.parent / "docs/upstreams.md"
BEGIN, END = "<!-- written by tests/test_real_upstreams.py -->\n", "<!-- end -->"
COLUMNS = (
    "users",
    "a user's events",
    "in one call",
    "unknown user",
    "new event",
    "its id",
    "the same key again",
    "50 requests at once",
)
MATRIX: dict[str, list[str]] = {}


class Tried(NamedTuple):
    upstream: Upstream
    base: str
    one_call: str
    upstream_url: str


@pytest.fixture(scope="module", params=UPSTREAMS, ids=lambda upstream: upstream.name)
def tried(request, needs, tmp_path_factory) -> Iterator[Tried]:
    folder = tmp_path_factory.mktemp("upstream")
    paths, one_call = json.dumps(REST_PATHS), json.dumps(REST_PATHS | BY_USER)
    # It is not speed that is tried here.
    patient = {"REQUEST_DEADLINE": "30", "UPSTREAM_TIMEOUT": "20"}
    with (
        running(request.param, needs, folder) as url,
        event_service(url, UPSTREAM_PATHS=paths, SINGLE_FLIGHT="false", **patient) as (base, _),
        event_service(url, UPSTREAM_PATHS=one_call) as (other, _),
    ):
        yield Tried(request.param, base, other, url)


def call(url: str, new: object = None, key: str = "") -> tuple[int, Any]:
    headers = {"content-type": "application/json", **({"idempotency-key": key} if key else {})}
    body = None if new is None else json.dumps(new).encode()
    try:
        with urllib.request.urlopen(
            urllib.request.Request(url, body, headers), timeout=20
        ) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


NEW = {"userId": "3", "title": "Concert", "description": "Bring a chair."}


@pytest.fixture(scope="module")
def row(tried: Tried) -> dict[str, str]:
    """What the table says of this upstream, found by calling the service in front of it."""
    before = _concerts(tried)
    added = call(f"{tried.base}/api/addEvent", NEW, "a-key")
    status, users = call(f"{tried.base}/api/getUsers")
    own = "/api/getEventsByUserId/1"
    cells = {
        "users": _count(status, users),
        "a user's events": _count(*call(f"{tried.base}{own}")),
        "in one call": _count(*call(f"{tried.one_call}{own}")),
        "unknown user": str(call(f"{tried.base}/api/getEventsByUserId/nobody")[0]),
        "new event": str(added[0]),
        "its id": _whose(added[1]["id"]) if added[0] == 200 else "-",
    }
    with ThreadPoolExecutor(50) as pool:
        statuses = list(pool.map(lambda _: call(f"{tried.base}{own}")[0], range(50)))
    good = statuses.count(200)
    cells["50 requests at once"] = "all" if good == 50 else f"{good}"
    # Not at once: json-server 1.0 reads its file anew after a write, and loses one meanwhile.
    again = call(f"{tried.base}/api/addEvent", NEW, "a-key")
    cells["the same key again"] = _stored(_concerts(tried) - before, added, again)
    MATRIX[tried.upstream.name] = [cells[column] for column in COLUMNS]
    return cells


def _count(status: int, answer: Any) -> str:
    return str(len(answer)) if status == 200 else f"**{status}**"


def _concerts(tried: Tried) -> int:
    _, events = call(f"{tried.upstream_url}/events")
    return sum(event["title"] == NEW["title"] for event in events)


def _whose(event_id: str) -> str:
    return "ours" if len(event_id) == 36 else "the upstream's"


def _stored(times: int, first: tuple[int, Any], again: tuple[int, Any]) -> str:
    if not times:
        return "nothing is kept"
    if times > 1:
        return f"stored {times} times"
    return "stored once" if first == again else f"stored once, {again[0]}"


def test_every_read_works(row):
    assert row["users"] in {"1", "3"}
    assert row["a user's events"] == row["in one call"] == "2"
    assert row["50 requests at once"] == "all"


def test_an_unknown_user_is_404(row):
    assert row["unknown user"] == "404"


def test_a_new_event_is_stored(row):
    assert row["new event"] == "200"


@pytest.mark.skipif(bool(os.environ.get("WRITE_DOCS")), reason="the page is being written")
def test_the_page_says_what_was_found(tried, row):
    assert _line(tried.upstream.name, MATRIX[tried.upstream.name]) in PAGE.read_text(), (
        "WRITE_DOCS=1 writes the table anew"
    )


@pytest.fixture(scope="module", autouse=True)
def page() -> Iterator[None]:
    yield
    if os.environ.get("WRITE_DOCS") and len(MATRIX) == len(UPSTREAMS):
        lines = [_line("upstream", COLUMNS), "|---" * (len(COLUMNS) + 1) + "|"]
        table = "\n".join([*lines, *(_line(name, cells) for name, cells in MATRIX.items())])
        before, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{rest.partition(END)[2]}")


@pytest.mark.anyio
@pytest.mark.parametrize(("name", "limit"), [("nginx", 256), ("gunicorn, sync workers", 2)])
async def test_the_recommended_limit_serves_a_crowd(name, limit, needs, tmp_path):
    upstream = next(each for each in UPSTREAMS if each.name == name)
    settings = {
        "UPSTREAM_PATHS": json.dumps(REST_PATHS),
        "UPSTREAM_CONCURRENCY": str(limit),
        "SINGLE_FLIGHT": "false",
        "REQUEST_DEADLINE": "30",
        "UPSTREAM_TIMEOUT": "20",
    }
    # The calls of a crowd wait for each other, ten times as many as are under way.
    crowd = min(1000, 10 * limit)
    with running(upstream, needs, tmp_path) as url, event_service(url, **settings) as (base, _):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:

            async def ask() -> int:
                async with client.get(f"{base}/api/getEvents") as response:
                    await response.read()
                    return response.status

            statuses = await asyncio.gather(*(ask() for _ in range(crowd)))

    assert set(statuses) == {200}


def _line(name: str, cells: Any) -> str:
    return f"| {' | '.join([name, *cells])} |"
