"""The dashboard in each state that an operator may find it in, with everything real behind it.

`make pictures` takes the pictures of the documents with it.
"""

import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from .dashboard_page import (
    DESK,
    PHONE,
    PICTURES,
    Service,
    badge,
    fetch,
    gauge,
    is_in_order,
    opened,
    sentence,
    tile,
)
from .processes import event_service, mock_upstream

pytestmark = [pytest.mark.browser, pytest.mark.needs("chromium")]

# Seconds of traffic from which the page knows what is usual.
KNOWN = 23.0
EVENT = {"userId": "1", "title": "Standup"}
LATER = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    outbox = f"sqlite:///{tmp_path_factory.mktemp('outbox')}/outbox.db"
    settings = {
        "OUTBOX_URL": outbox,
        "BREAKER_COOLDOWN": "2",
        "UPSTREAM_TIMEOUT": "4",
        "RUNBOOK_URL": "https://docs.example/runbook",
        "TRACE_URL": "https://traces.example/{trace_id}",
    }
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(upstream, **settings) as (url, process),
    ):
        yield Service(url, upstream, process)


@pytest.fixture(scope="module")
def desk(browser: Browser, service: Service) -> Iterator[Page]:
    """One page for all these tests: opening it takes longer than most of them."""
    rights = ["clipboard-read", "clipboard-write"]
    with opened(browser, service.url, viewport=DESK, permissions=rights) as page:
        yield page


@pytest.fixture
def page(service: Service, desk: Page) -> Iterator[Page]:
    yield desk
    service.heal()
    for breaker in ("addEvent", "getUsers", "getUserById", "getEvents", "getEventById"):
        service.control(breaker, "reset")


@contextmanager
def traffic(service: Service, *paths: str, pause: float = 0.05) -> Iterator[None]:
    """Reads, one after the other, for as long as it lasts."""
    done = threading.Event()

    def send() -> None:
        while not done.is_set():
            for path in paths:
                fetch(f"{service.url}/api/{path}")
            done.wait(pause)

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def send(service: Service, path: str, times: int) -> list[int]:
    with ThreadPoolExecutor(8) as senders:
        return list(senders.map(lambda _: fetch(f"{service.url}/api/{path}"), range(times)))


def rows(page: Page, kind: str) -> Locator:
    return page.locator(f"#tail li[data-kind={kind}]")


@pytest.fixture(scope="module")
def trickle(service: Service) -> Iterator[float]:
    """Some traffic from now on, through all tests that follow; since when."""
    with traffic(service, "getEventsByUserId/1", pause=0.2):
        yield time.monotonic()


def point_at(page: Page, part: Locator, share: float) -> None:
    """Move the pointer over the part's chart, so far from its left end."""
    chart = part.locator(".chart")
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    assert box
    page.mouse.move(box["x"] + share * box["width"], box["y"] + box["height"] / 2)


def test_idle(page: Page):
    expect(sentence(page)).to_have_text("All five circuits are closed; no requests at the moment")
    expect(page.locator("#what-to-do")).to_be_hidden()
    expect(page.get_by_text("Nothing is queued")).to_be_visible()
    is_in_order(page, "idle")


@pytest.mark.usefixtures("trickle")
def test_under_load_charts_tell_the_values_of_a_moment_and_two_stretches_of_time(
    service: Service, page: Page
):
    with traffic(service, "getUsers"):
        expect(sentence(page)).to_have_text(re.compile(r"All five .* closed; [\d.,]+ requests/s"))
        expect(gauge(page, "Requests").locator("b")).not_to_have_text("0 /s")
        users = page.locator("[data-route='/api/getUsers']")
        expect(users.locator(".line")).to_have_attribute("d", re.compile("^M"))
        point_at(page, users, 0.995)
        told = re.compile(r"\d\d:\d\d:\d\d · requests \d[\d.]*/s · failed or refused 0/s")
        expect(users.locator(".values")).to_have_text(told)
        expect(gauge(page, "Upstream calls").locator("b")).to_contain_text("of 1,024")
        is_in_order(page, "load")

        page.get_by_text("15 min", exact=True).click()
        slow = page.locator("[data-operation=getUsers]")
        point_at(page, slow, 0.2)
        between = re.compile(r"\d\d:\d\d:\d\d to \d\d:\d\d:\d\d · p50 \u2013 · p95 \u2013")
        expect(slow.locator(".values")).to_have_text(between)
        expect(slow).to_contain_text("15 min ago")
        page.get_by_text("2 min", exact=True).click()
        expect(slow).to_contain_text("2 min ago")
        page.mouse.move(0, 0)
        expect(slow.locator(".values")).to_be_hidden()


def test_a_storm_of_5xx_opens_circuits_whose_tiles_say_why(service: Service, page: Page):
    service.fault("addEvent", status=503, delay=0.01)
    with traffic(service, "getEvents"):
        for _ in range(3):
            service.add_event()
        expect(badge(page, "addEvent")).to_have_text("Open")
        expect(sentence(page)).to_contain_text("addEvent is open for")
        expect(tile(page, "addEvent").locator(".since")).to_contain_text("has been open for")
        last = re.compile(r"Last failure: status 503 after [\d.]+\sms, \d+\ss ago, request 0")
        expect(tile(page, "addEvent").locator(".last")).to_have_text(last)
        expect(page.locator("#circuits > article").first).to_have_attribute(
            "data-breaker", "addEvent"
        )
        expect(page.locator("[data-operation=addEvent] .mark[data-state=open]")).not_to_have_count(
            0
        )
        expect(page.locator("[data-operation=getEvents] .mark")).to_have_count(0)
        expect(rows(page, "failure").first).to_contain_text("POST /api/addEvent")

        what_to_do = page.locator("#what-to-do")
        expect(what_to_do).to_have_attribute(
            "href", "https://docs.example/runbook#a-circuit-stays-open"
        )
        trace = rows(page, "failure").first.get_by_role("link")
        expect(trace).to_have_attribute("href", re.compile("^https://traces.example/[0-9a-f]{32}$"))
        copy = rows(page, "failure").first.get_by_role("button").first
        copy.click()
        assert page.evaluate("navigator.clipboard.readText()") == copy.inner_text()
        is_in_order(page, "storm", themes=("light", "dark"))


def test_a_flood_of_refusals_is_one_row_and_leaves_the_failures_in_sight(
    service: Service, page: Page
):
    service.fault("getUsers", status=500)
    fetch(f"{service.url}/api/getUsers", **{"x-request-id": "the-failure"})
    service.control("getEvents", "isolate")
    assert set(send(service, "getEvents", 400)) == {503}

    flood = rows(page, "refusal").filter(has_text="getEvents is isolated")
    expect(flood).to_have_count(1)
    expect(flood).to_contain_text("400 refused")
    expect(rows(page, "failure").filter(has_text="the-failure")).to_be_visible()
    refused = page.locator("[data-route='/api/getEvents'] dd").nth(1)
    expect(refused).to_have_text(re.compile(r"[\d.]+ /s"))
    is_in_order(page, "refusals")


def test_half_open(service: Service, page: Page):
    service.control("addEvent", "trip")
    # The page and its pictures take their time on a busy machine.
    service.fault("addEvent", delay=3.5)
    expect(sentence(page)).to_contain_text("the next call is its canary")
    canary = threading.Thread(target=service.add_event)
    canary.start()
    expect(badge(page, "addEvent")).to_have_text("Half-open")
    expect(tile(page, "addEvent")).to_contain_text("Canary in flight")
    if PICTURES:
        is_in_order(page, "half-open")
    canary.join()
    expect(badge(page, "addEvent")).to_have_text("Closed")


def test_isolated(service: Service, page: Page):
    service.control("getEvents", "isolate")
    expect(sentence(page)).to_contain_text("getEvents is isolated by hand")
    expect(tile(page, "getEvents")).to_contain_text("Refuses every call")
    is_in_order(page, "isolated")


def test_an_outbox_that_fills_is_looked_at_retried_and_dropped(service: Service, page: Page):
    service.fault("addEvent", status=422)
    fetch(f"{service.url}/api/addEvent", "POST", {**EVENT, "title": "Refused"}, **LATER)
    summary = page.locator("#outbox summary").first
    summary.click()
    refused = page.locator("#outbox li[data-status=refused]")
    expect(refused).to_have_count(1)
    service.control("addEvent", "isolate")
    for user in ("1", "2", "3"):
        fetch(f"{service.url}/api/addEvent", "POST", {**EVENT, "userId": user}, **LATER)
    expect(summary).to_contain_text("3 queued, the oldest for")
    expect(gauge(page, "Outbox").locator("b")).to_have_text("3 queued")
    expect(page.locator("#outbox li")).to_have_count(4)
    is_in_order(page, "outbox", at="#outbox")

    page.get_by_label("State").select_option("refused")
    expect(page.locator("#outbox li")).to_have_count(1)
    refused.get_by_text("All that is known").click()
    expect(refused.locator("pre")).to_contain_text('"lastProblem"')
    refused.get_by_role("button", name="Retry").click()
    expect(page.locator("#outbox li")).to_have_count(0)
    page.get_by_label("State").select_option("queued")
    expect(page.locator("#outbox li")).to_have_count(4)
    page.locator("#outbox li", has_text="user 3").get_by_role("button", name="Drop").click()
    expect(page.locator("#outbox li")).to_have_count(3)
    service.heal()
    service.control("addEvent", "release")
    expect(summary).to_have_text("Nothing is queued")


def test_a_delivery_that_ended_just_after_it_was_listed_is_looked_at_again(
    service: Service, page: Page
):
    service.fault("addEvent", status=422)
    fetch(f"{service.url}/api/addEvent", "POST", {**EVENT, "userId": "2"}, **LATER)
    details = page.locator("#outbox details").first
    details.evaluate("node => node.open = true")
    page.get_by_label("State").select_option("")
    page.get_by_label("User id").fill("2")
    page.get_by_label("User id").press("Enter")
    expect(page.locator("#outbox li[data-status=refused]")).to_have_count(1)
    details.evaluate("node => node.open = false")

    def as_it_was(route: Route) -> None:
        """What a look a moment earlier would have been answered; the next one is answered truly."""
        reply = route.fetch()
        route.fulfill(response=reply, body=reply.text().replace("refused", "queued"))

    page.route("**/dashboard/outbox?*", as_it_was, times=1)
    with page.expect_response("**/dashboard/outbox?*"):
        details.locator("summary").first.click()
    refused = page.locator("#outbox li[data-status=refused]")
    expect(refused).to_have_count(1)
    refused.get_by_role("button", name="Drop").click()
    expect(refused).to_have_count(0)
    page.get_by_label("User id").fill("")
    page.get_by_label("User id").press("Enter")


def test_the_mocks_panel_shows_what_is_set_and_heals_it(service: Service, page: Page):
    panel = page.locator("#controls")
    panel.get_by_label("Operation").select_option("getUsers")
    panel.get_by_label("Status", exact=True).select_option("503")
    panel.get_by_label("Retry-After, s").fill("5")
    panel.get_by_role("button", name="Set the fault").click()
    now = panel.locator(".set")
    expect(now).to_contain_text("getUsers answers 503 (Retry-After 5)")
    panel.get_by_label("Operation").select_option("getEvents")
    panel.get_by_label("How", exact=True).select_option("slow-body")
    panel.get_by_label("Failing, %").fill("50")
    expect(panel.get_by_label("Status", exact=True)).to_be_hidden()
    panel.get_by_role("button", name="Set the fault").click()
    expect(now).to_contain_text("getEvents in 50\xa0% of calls sends its body slowly")
    panel.get_by_label("getEventById takes, s").fill("0.3")
    panel.get_by_role("button", name="Set the delay").click()
    expect(now).to_contain_text("getEventById takes 0.3 s")
    is_in_order(page, "mock", at="#controls")

    panel.get_by_role("button", name="Heal getUsers").click()
    expect(now).not_to_contain_text("getUsers")
    panel.get_by_role("button", name="Heal everything").click()
    expect(now).to_contain_text("No fault is set.")


def test_on_a_phone_the_tail_is_within_two_screens_whatever_is_wrong(service: Service, page: Page):
    for breaker in ("addEvent", "getUsers"):
        service.control(breaker, "isolate")
    expect(sentence(page)).to_contain_text("addEvent and getUsers are isolated")
    page.set_viewport_size(PHONE)
    top = page.locator("#tail-title").bounding_box()
    pill = page.locator("#tail-form .choice").bounding_box()
    label = page.locator("#tail-form .choice span").first.bounding_box()
    page.set_viewport_size(DESK)

    assert top
    assert top["y"] < 2 * PHONE["height"] - 200
    assert pill
    assert label
    assert label["height"] > pill["height"] - 4


def test_one_stray_404_gets_no_tile(service: Service, page: Page):
    fetch(f"{service.url}/wp-login.php")
    fetch(f"{service.url}/api/getUsers")
    users = page.locator("[data-route='/api/getUsers'] .rate")
    expect(users).not_to_have_text("0 /s")
    expect(page.locator("[data-route='other paths']")).to_have_count(0)
    send(service, "../nowhere", 6)
    expect(page.locator("[data-route='other paths']")).to_be_visible()


def test_slow_but_closed(service: Service, page: Page, trickle: float):
    # Nothing to wait for after the other tests.
    page.wait_for_timeout(max(0.0, trickle + KNOWN - time.monotonic()) * 1000)
    service.fault("getUserById", delay=0.6)
    slower = re.compile(r"All five circuits are closed, but getUserById is \d+\sms slower")
    expect(sentence(page)).to_have_text(slower, timeout=15_000)
    expect(page.locator("#banner")).to_have_attribute("data-state", "failing")
    is_in_order(page, "slow")
