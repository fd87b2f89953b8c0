import asyncio
import io
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from rich.console import Console

from .processes import event_service, mock_upstream

REPOSITORY = Path(__file__).parent.parent


@pytest.fixture
def tell(monkeypatch):
    """Tells the story at a faster pace; returns its claims and what was printed."""
    monkeypatch.syspath_prepend(REPOSITORY)
    screen_module, story = import_module("demo.screen"), import_module("demo.story")

    def run(service, upstream, *, terminal=False):
        printed = io.StringIO()
        console = Console(file=printed, force_terminal=terminal, width=100)
        screen = screen_module.Screen(console)
        pace = story.Pace(event_delay=0.1, cooldown=1.0, pause=0.0)
        claims = asyncio.run(story.tell(service, upstream, screen, pace))
        assert screen.summary(claims) == all(claim.holds for claim in claims)
        return claims, printed.getvalue()

    return run


@pytest.mark.long
def test_every_claim_of_the_demo_holds_and_its_output_is_plain_without_a_terminal():
    demo = subprocess.run(
        [sys.executable, "-m", "demo"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )

    assert demo.returncode == 0, demo.stdout + demo.stderr
    assert demo.stdout.count("holds") == 10
    assert "FAILS" not in demo.stdout
    assert "\x1b" not in demo.stdout
    first, *_ = demo.stdout.splitlines()
    assert re.fullmatch(r"Watch it live, too: http://127\.0\.0\.1:\d+/dashboard", first)
    assert "make dev" in demo.stdout.partition("What to try next")[2]


def test_on_a_terminal_the_bars_grow(tell):
    options = ["--users", "1", "--accept", "5", "--refuse", "4", "--event-delay", "0.1"]
    with (
        mock_upstream(*options) as upstream,
        event_service(upstream, BREAKER_COOLDOWN="1") as (service, _),
    ):
        claims, printed = tell(service, upstream, terminal=True)

    assert all(claim.holds for claim in claims), printed
    assert "\x1b" in printed
    assert printed.count("one by one") > 5
    assert {"circuit \x1b[32mclosed", "circuit \x1b[1;31mopen"} <= set(
        re.findall(r"circuit \x1b\[[\d;]+m[a-z-]+", printed)
    )


def test_a_claim_that_does_not_hold_is_shown_as_failed(tell):
    with (
        mock_upstream("--users", "1", "--refuse", "0", "--event-delay", "0.1") as upstream,
        event_service(upstream) as (service, _),
    ):
        claims, printed = tell(service, upstream)

    failed = {claim.text for claim in claims if not claim.holds}
    assert "the third failure opens the circuit" in failed
    assert "none of them reaches the upstream" in failed
    assert printed.count("FAILS") == len(failed)
