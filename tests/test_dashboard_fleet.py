"""The dashboard of several workers and machines, in production, with its rights and questions."""

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, expect

from .dashboard_page import (
    DESK,
    PICTURES,
    badge,
    context,
    faults_of,
    fetch,
    gauge,
    is_in_order,
    opened,
    sentence,
    tile,
)
from .processes import Process, event_service, free_port, mock_upstream, running

pytestmark = [pytest.mark.browser, pytest.mark.needs("chromium")]

TOKEN = "open-sesame-to-operators"


class Fleet(NamedTuple):
    """Two workers in production."""

    url: str
    upstream: str
    process: Process
    page: Page


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with mock_upstream("--event-delay", "0", "--refuse", "0") as url:
        yield url


@pytest.fixture(scope="module")
def fleet(browser: Browser, upstream: str) -> Iterator[Fleet]:
    settings = {
        "ENV": "production",
        "OPS_TOKEN": TOKEN,
        "WORKERS": "2",
        "DASHBOARD_CONTROLS": "true",
        "BREAKER_COOLDOWN": "600",
    }
    with (
        event_service(upstream, **settings) as (url, process),
        context(browser, viewport=DESK) as page,
    ):
        page.goto(f"{url}/dashboard")
        page.get_by_label("token").fill(TOKEN)
        page.get_by_role("button", name="Sign in").click()
        expect(page.locator("[data-breaker]")).to_have_count(5)
        yield Fleet(url, upstream, process, page)
        fetch(f"{upstream}/__admin/reset", "POST", {})


def open_in_one_worker(url: str, upstream: str) -> None:
    """Three failures over one connection, which is one worker's."""
    fetch(f"{upstream}/__admin/faults/addEvent", "PUT", {"status": 500})
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    for _ in range(3):
        body = json.dumps({"userId": "1", "title": "Standup"})
        connection.request("POST", "/api/addEvent", body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
        assert reply.status == 502
    connection.close()


def test_a_circuit_that_is_open_in_one_of_two_workers_and_the_run_book_about_it(fleet: Fleet):
    page = fleet.page
    expect(page.locator("#worker")).to_contain_text("2 workers")
    open_in_one_worker(fleet.url, fleet.upstream)
    expect(sentence(page)).to_contain_text("addEvent is open in 1 of 2 workers")
    expect(tile(page, "addEvent").locator(".since")).to_contain_text("in 1 of 2 workers")
    expect(page.locator("#tail li[data-kind=transition]").first).to_contain_text(
        re.compile("worker [12]$")
    )
    is_in_order(page, "workers")

    with page.context.expect_page() as opening:
        page.locator("#what-to-do").click(modifiers=["Control"])
    runbook = opening.value
    expect(runbook.locator("h2:target")).to_have_text("A circuit stays open")
    faults = faults_of(runbook)
    runbook.close()
    assert faults == []


def test_controls_ask_for_how_long_why_and_by_whom_by_keyboard_alone(fleet: Fleet):
    page = fleet.page
    trip = page.get_by_role("button", name="Trip getUsers")
    trip.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Trip getUsers")
    expect(dialog.get_by_label("For how long")).to_be_focused()
    faults = faults_of(page)
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    expect(trip).to_be_focused()

    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_be_visible()  # a reason is required
    page.keyboard.type(" ")
    page.keyboard.press("Tab")
    page.keyboard.type("Kim")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_contain_text("Say why")
    dialog.get_by_label("Why").fill("a drill")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(tile(page, "getUsers").locator(".since")).to_contain_text("has been open for")
    expect(sentence(page)).to_contain_text("getUsers")

    page.get_by_role("button", name="Isolate getEvents").click()
    dialog = page.get_by_role("dialog", name="Isolate getEvents")
    expect(dialog.get_by_label("Who you are")).to_have_value("Kim")
    dialog.get_by_label("For how long").select_option("5 minutes")
    dialog.get_by_label("Why").fill("it is being moved")
    if PICTURES:
        is_in_order(page, "dialog")
    dialog.get_by_role("button", name="Isolate").click()
    expect(badge(page, "getEvents")).to_have_text("Isolated")
    expect(tile(page, "getEvents")).to_contain_text("By hand, for another 4 min")
    for breaker in ("getUsers", "addEvent"):
        page.get_by_role("button", name=f"Reset {breaker}").click()
        dialog = page.get_by_role("dialog", name=f"Reset {breaker}")
        dialog.get_by_label("Why").fill("the drill is over")
        dialog.get_by_role("button", name="Reset").click()
    expect(sentence(page)).to_contain_text("getEvents is isolated by hand in 2 of 2 workers")

    lines = [json.loads(line) for line in fleet.process.output.splitlines()]
    told = [
        (line["action"], line["target"], line["by"], line.get("seconds"))
        for line in lines
        if line["event"] == "dashboard control used"
    ]
    assert faults == []
    assert told == [
        ("trip", "getUsers", "Kim", None),
        ("isolate", "getEvents", "Kim", 300.0),
        ("reset", "getUsers", "Kim", None),
        ("reset", "addEvent", "Kim", None),
    ]


def test_a_connection_that_is_lost(fleet: Fleet):
    fleet.process.stop()
    expect(sentence(fleet.page)).to_contain_text("No news from the service")
    expect(fleet.page.locator("#banner")).to_have_attribute("data-state", "lost")
    expect(fleet.page.locator("#what-to-do")).to_contain_text("the service does not answer")
    is_in_order(fleet.page, "lost")


@pytest.mark.needs("redis-server")
def test_a_cluster_shows_the_decisions_of_other_machines_and_when_it_is_alone(
    browser: Browser, upstream: str, needs, tmp_path: Path
):
    port = str(free_port())
    options = ["--port", port, "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    settings = {"CLUSTER_URL": f"redis://127.0.0.1:{port}", "BREAKER_COOLDOWN": "600"}
    with (
        running(needs("redis-server"), *options) as redis,
        event_service(upstream, **settings) as (here, _),
        event_service(upstream, **settings) as (there, _),
        opened(browser, here, viewport=DESK) as page,
    ):
        expect(gauge(page, "Cluster").locator("b")).to_have_text("2 nodes")
        open_in_one_worker(there, upstream)
        expect(sentence(page)).to_contain_text("addEvent is open for")
        is_in_order(page, "cluster")
        control = {"x-dashboard-control": "1"}
        assert fetch(f"{here}/dashboard/controls/breakers/addEvent/reset", "POST", **control) == 200
        expect(badge(page, "addEvent")).to_have_text("Closed")
        redis.kill()
        expect(sentence(page)).to_contain_text("this server is alone: it has lost the cluster")
        expect(page.locator("#what-to-do")).to_contain_text("alone in the cluster")
    fetch(f"{upstream}/__admin/reset", "POST", {})
