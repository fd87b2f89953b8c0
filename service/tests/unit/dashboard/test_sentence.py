"""What the banner says of each state: the page's own code, run by Node."""

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from event_service.dashboard.live_frame import (
    Breaker,
    Cluster,
    Endpoint,
    Frame,
    Latency,
    Operation,
    Outbox,
    Service,
    Upstream,
)

NOW = 1_000.0
SLOW, FINE = Latency(1.4, 1.4, 1.4), Latency(0.1, 0.1, 0.1)
CLOSED = Breaker("addEvent", "closed", 900.0, None, None, 10.0, [], [], 0, 1, 0, 0, None)
OPEN = replace(CLOSED, state="open", since=991.0, troubled_since=991.0, retry_at=1_001.0)
SERVICE = Service(3, 4096, 0.0, 0.0, 0.0, FINE, 0.1, 1_000, 0.01)
ENDPOINT = Endpoint("GET", "/api/getUsers", [9], [0], [9], [0], {"ok": 9}, 10.0, 0.0, FINE)
OPERATION = Operation("getUsers", [0.1] * 120, [0.1] * 120, [], [], 10.0, 0.0, FINE, 0.1)
UPSTREAM = Upstream(1, 16, 0, 10.0, 0, 0, 0, 0, [OPERATION])

STUCK = "a-circuit-stays-open"
SLOW_UPSTREAM = "the-upstream-is-slow"
TOO_MUCH = "more-requests-than-it-can-take"
OUTBOX = "events-wait-or-are-dead"
FAILING = "requests-or-attempts-fail"
BUSY = "the-event-loop-runs-late"
EAGER = "clients-are-over-their-rate"
BUDGET = "retries-use-up-their-budget"
QUEUED = "calls-wait-for-a-free-place"
ALONE = "alone-in-the-cluster"


def frame(**changes: Any) -> Frame:
    circuits = [replace(CLOSED, name=name) for name in ("getUsers", "getEvents")]
    plain = Frame(
        *(1, NOW, NOW, NOW, 500.0, "1.0", "testing", 7, 1, 1, 10, 20.0),
        *([CLOSED, *circuits], [ENDPOINT], UPSTREAM, [], [], 0, SERVICE),
    )
    return replace(plain, **changes)


def circuits(first: Breaker, *more: Breaker) -> dict[str, Any]:
    rest = [replace(CLOSED, name=name) for name in ("getUsers", "getEvents")][len(more) :]
    return {"breakers": [first, *more, *rest]}


def service(**changes: Any) -> dict[str, Any]:
    return {"service": replace(SERVICE, **changes)}


def upstream(**changes: Any) -> dict[str, Any]:
    return {"upstream": replace(UPSTREAM, **changes)}


def operation(**changes: Any) -> dict[str, Any]:
    return upstream(operations=[replace(OPERATION, **changes)])


def slow(**changes: Any) -> dict[str, Any]:
    return operation(latency=SLOW, p95=[0.1] * 110 + [1.4] * 10, **changes)


CASES: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "closed", "All three circuits are closed; 20 requests/s", ""),
    ({"rate": 0.0}, "closed", "All three circuits are closed; no requests at the moment", ""),
    (circuits(OPEN), "open", "addEvent is open for 9 s; next canary in 1 s", STUCK),
    (
        circuits(replace(OPEN, workers={"open": 1, "closed": 1}, retry_at=NOW)),
        "open",
        "addEvent is open in 1 of 2 workers for 9 s; the next call is its canary",
        STUCK,
    ),
    (
        circuits(replace(OPEN, troubled_since=400.0)),
        "open",
        "addEvent is open for 9 s (in trouble for 10 min 0 s); next canary in 1 s",
        STUCK,
    ),
    (
        circuits(replace(OPEN, state="half_open", retry_at=None, probes=1)),
        "half_open",
        "addEvent is half-open; its canary is in flight",
        STUCK,
    ),
    (
        circuits(replace(OPEN, state="isolated", retry_at=None)),
        "isolated",
        "addEvent is isolated by hand for 9 s and refuses every call",
        STUCK,
    ),
    (
        circuits(OPEN, replace(OPEN, name="getUsers", state="isolated", retry_at=None)),
        "open",
        "addEvent is open, getUsers is isolated; next canary in 1 s",
        STUCK,
    ),
    # While a circuit is open it still tells of the rest.
    (
        {**circuits(OPEN), "outbox": Outbox(2, 75.0)},
        "open",
        (
            "addEvent is open for 9 s; next canary in 1 s; "
            "also the oldest of 2 queued events waits for 1 min 15 s"
        ),
        STUCK,
    ),
    (service(shed=4.0), "failing", "4 requests/s are refused as too many", TOO_MUCH),
    (
        service(in_flight=4000),
        "failing",
        "4,000 of 4,096 requests are in flight",
        TOO_MUCH,
    ),
    (service(steady_lag=0.25), "failing", "the event loop runs 250 ms late", BUSY),
    (service(loop_lag=0.25), "closed", "All three circuits are closed; 20 requests/s", ""),
    (service(limited=5.0), "failing", "5 requests/s are over their client\u2019s rate", EAGER),
    (
        upstream(in_flight=16, waiting=40),
        "failing",
        "40 upstream calls wait for one of 16 places",
        QUEUED,
    ),
    (upstream(retries_left=0.4), "failing", "the retry budget is spent", BUDGET),
    (slow(), "failing", "getUsers is 1.3 s slower than usual", SLOW_UPSTREAM),
    (slow(normal=None), "failing", "getUsers is 1.3 s slower than usual", SLOW_UPSTREAM),
    # Always slow is not slower than usual.
    (slow(normal=1.4), "closed", "All three circuits are closed; 20 requests/s", ""),
    (
        operation(error_share=0.15),
        "failing",
        "15 % of the attempts at getUsers fail, and are made again",
        FAILING,
    ),
    (
        {"endpoints": [replace(ENDPOINT, error_share=0.4, refused=2.0)]},
        "failing",
        "25 % of /api/getUsers fails",
        FAILING,
    ),
    # What a circuit refused has failed nowhere else.
    (
        {"endpoints": [replace(ENDPOINT, error_share=1.0, refused=10.0)]},
        "closed",
        "All three circuits are closed; 20 requests/s",
        "",
    ),
    (
        {"outbox": Outbox(1, 61.0)},
        "failing",
        "the oldest of 1 queued event waits for 1 min 1 s",
        OUTBOX,
    ),
    (
        {"cluster": Cluster(joined=False, nodes=1)},
        "failing",
        "this server is alone: it has lost the cluster",
        ALONE,
    ),
    (
        {**service(shed=4.0, steady_lag=0.3), **slow(), "outbox": Outbox(1, 61.0)},
        "failing",
        (
            "4 requests/s are refused as too many, the event loop runs 300 ms late, "
            "getUsers is 1.3 s slower than usual and one more"
        ),
        TOO_MUCH,
    ),
]


@pytest.fixture(scope="module")
def told(
    needs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    """What the page makes of the frames of all cases."""
    folder = tmp_path_factory.mktemp("page")
    with as_file(files("event_service.dashboard") / "assets") as assets:
        shutil.copytree(assets, folder, dirs_exist_ok=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "check.js").write_text(
        """import { readFileSync } from "node:fs";
import { describe } from "./sentence.js";
const frames = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(frames.map((frame) => describe(frame, frame.time))));
"""
    )
    frames = msgspec.json.encode([frame(**changes) for changes, *_ in CASES])
    run = subprocess.run(
        [needs("node"), folder / "check.js"], input=frames, capture_output=True, check=True
    )
    found: list[dict[str, str]] = json.loads(run.stdout)
    return found


@pytest.mark.needs("node")
@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: CASES[number][2][:60])
def test_the_sentence_names_the_worst_and_where_to_read_on(told: list[dict[str, str]], number: int):
    _, state, text, section = CASES[number]
    # A number and its unit stay on one line.
    said = told[number]["text"].replace("\xa0", " ")

    assert said.removeprefix("All three circuits are closed, but ") == text
    assert (told[number]["state"], told[number]["section"]) == (state, section)
