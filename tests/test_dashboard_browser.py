"""The dashboard as people see it: real Chromium, the real service, the real mock failing."""

import json
import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser, Page, expect

from .dashboard_page import (
    Service,
    badge,
    context,
    faults_of,
    fetch,
    opened,
    sentence,
    too_wide,
)
from .processes import Process, event_service, free_port, mock_upstream

HOSTILE = "<img src=x onerror=alert(1)>" + "x" * 120
EVENTS = "text/event-stream"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.needs("chromium"),
]


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(upstream, BREAKER_COOLDOWN="2", RETRY_ATTEMPTS="1") as (url, process),
    ):
        yield Service(url, upstream, process)


@pytest.fixture
def service(running: Service) -> Service:
    running.heal()
    for breaker in ("addEvent", "getUsers", "getEvents"):
        running.control(breaker, "reset")
    return running


@pytest.fixture
def dashboard(browser: Browser, service: Service) -> Iterator[Page]:
    with opened(browser, service.url) as page:
        yield page


def test_a_circuit_is_seen_to_open_to_try_a_canary_and_to_close(service, dashboard):
    expect(badge(dashboard, "addEvent")).to_have_text("Closed")
    expect(sentence(dashboard)).to_contain_text("All five circuits are closed")

    service.fault("addEvent", status=500)
    service.add_event()
    service.add_event()
    tile = dashboard.locator("[data-breaker=addEvent]")
    expect(tile).to_contain_text("2 of 3 failures")
    expect(tile.locator(".slots .taken")).to_have_count(2)
    expect(tile.locator(".window i")).to_have_count(2)

    service.add_event()
    expect(badge(dashboard, "addEvent")).to_have_text("Open")
    expect(sentence(dashboard)).to_have_text(re.compile(r"addEvent is open for .* next canary in"))
    expect(tile).to_contain_text("Next canary in")
    expect(tile.locator(".changes li").first).to_contain_text("3 failures within 30 s")
    expect(sentence(dashboard)).to_contain_text("the next call is its canary")

    service.fault("addEvent", delay=1.5)
    canary = threading.Thread(target=service.add_event)
    canary.start()
    expect(badge(dashboard, "addEvent")).to_have_text("Half-open")
    expect(tile).to_contain_text("Canary in flight")
    canary.join()

    expect(badge(dashboard, "addEvent")).to_have_text("Closed")
    expect(tile.locator(".changes li").first).to_contain_text("recovered")
    expect(sentence(dashboard)).to_contain_text("All five circuits are closed")


def test_failed_requests_are_listed_with_their_ids_and_can_be_filtered(service, dashboard):
    service.fault("addEvent", status=500)
    ids = [f"browser-{number}" for number in range(3)]
    for request_id in ids:
        url = f"{service.url}/api/addEvent"
        fetch(url, "POST", {"userId": "1", "title": "x"}, **{"x-request-id": request_id})
    rows = dashboard.locator("#tail li:visible")
    expect(dashboard.locator("#tail")).to_contain_text("browser-2")

    dashboard.get_by_role("searchbox").fill("BROWSER-1")
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("502")
    dashboard.get_by_role("searchbox").fill("")
    dashboard.get_by_text("Transitions", exact=True).click()
    expect(rows.filter(has_text="browser-1")).to_have_count(0)
    expect(rows.first).to_contain_text("3 failures within 30 s")


def test_an_id_is_copied_also_where_without_tls_there_is_no_clipboard_api(service, dashboard):
    dashboard.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    service.fault("addEvent", status=500)
    event = {"userId": "1", "title": "x"}
    fetch(f"{service.url}/api/addEvent", "POST", event, **{"x-request-id": "to-be-copied"})
    copy = dashboard.get_by_role("button", name="Copy the request id to-be-copied")
    copy.click()
    expect(copy).to_have_class("copy done")
    search = dashboard.get_by_role("searchbox")
    search.focus()
    dashboard.keyboard.press("Control+V")

    expect(search).to_have_value("to-be-copied")


def test_a_paused_list_stands_still_until_it_goes_on(service, dashboard):
    dashboard.get_by_role("button", name="Pause").click()
    service.control("getUsers", "trip")
    # Two, if what the test before left behind was reset after the first frame.
    expect(dashboard.locator("#tail-count")).to_contain_text(re.compile("paused, [12] new"))
    expect(dashboard.locator("#tail li", has_text="getUsers closed → open")).to_have_count(0)

    dashboard.get_by_role("button", name="Go on").click()
    expect(dashboard.locator("#tail li").first).to_contain_text("tripped by hand")


def test_controls_trip_isolate_and_reset_a_circuit_by_keyboard(service, dashboard):
    dashboard.keyboard.press("Tab")
    expect(dashboard.get_by_role("link", name="Skip to the circuits")).to_be_focused()
    dashboard.keyboard.press("Enter")
    # A circuit in trouble comes before it.
    label = "document.activeElement.getAttribute('aria-label')"
    for _ in range(20):
        dashboard.keyboard.press("Tab")
        if dashboard.evaluate(label) == "Trip addEvent":
            break
    expect(dashboard.get_by_role("button", name="Trip addEvent")).to_be_focused()
    outline = "document.activeElement && getComputedStyle(document.activeElement).outlineStyle"
    assert dashboard.evaluate(outline) == "solid"

    dashboard.keyboard.press("Enter")
    expect(badge(dashboard, "addEvent")).to_have_text("Open")
    dashboard.keyboard.press("Tab")
    dashboard.keyboard.press("Space")
    expect(badge(dashboard, "addEvent")).to_have_text("Isolated")
    expect(sentence(dashboard)).to_contain_text("isolated by hand")
    dashboard.keyboard.press("Tab")
    dashboard.keyboard.press("Enter")
    expect(badge(dashboard, "addEvent")).to_have_text("Closed")


def test_the_whole_story_is_told_by_clicking(service, dashboard):
    dashboard.get_by_label("Failing, %").fill("100")
    dashboard.get_by_role("button", name="Set the fault").click()
    expect(dashboard.get_by_text("addEvent now fails as set.")).to_be_visible()
    dashboard.get_by_role("button", name="Send traffic").click()
    expect(badge(dashboard, "addEvent")).to_have_text("Open")

    dashboard.get_by_role("button", name="Heal everything").click()
    expect(badge(dashboard, "addEvent")).to_have_text("Closed")
    dashboard.get_by_role("button", name="Stop the traffic").click()
    expect(dashboard.locator("[data-route='/api/addEvent'] .rate")).not_to_have_text("0 /s")


def test_a_silent_stream_is_obvious_and_comes_back(service, dashboard):
    worker = psutil.Process(service.process._popen.pid).children(recursive=True)[-1]
    worker.suspend()
    try:
        expect(sentence(dashboard)).to_contain_text("No news from the service")
        expect(dashboard.locator("#fresh")).to_contain_text("stale")
    finally:
        worker.resume()
    expect(dashboard.locator("#fresh")).to_contain_text("live")
    expect(sentence(dashboard)).to_contain_text("All five circuits are closed")


def test_a_quiet_service_says_so_and_one_that_ends_is_found_again_when_it_is_back(browser, running):
    port = str(free_port())
    environ = {
        "EVENT_SERVICE_ENV": "testing",
        "EVENT_SERVICE_PORT": port,
        "EVENT_SERVICE_UPSTREAM_URL": running.upstream,
    }
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:
        first = Process("event-service", "serve", **environ)
        stack.callback(first.stop)
        first.wait_for(f"{url}/livez")
        page = stack.enter_context(opened(browser, url))
        expect(sentence(page)).to_have_text(
            "All five circuits are closed; no requests at the moment"
        )
        expect(page.get_by_text("Nothing has failed and no circuit has moved")).to_be_visible()
        expect(page.get_by_text("no requests in two minutes")).to_have_count(4)
        expect(page.get_by_text("No transitions yet")).to_have_count(5)

        first.stop()
        expect(sentence(page)).to_contain_text("No news from the service")
        expect(page.locator("#fresh")).to_contain_text("lost")

        second = Process("event-service", "serve", **environ)
        stack.callback(second.stop)
        second.wait_for(f"{url}/livez")
        expect(page.locator("#fresh")).to_contain_text("live")
        expect(page.locator("#tail")).to_contain_text("Connected to worker")


def test_a_screen_reader_hears_changes_of_state_and_no_ticking(service, dashboard):
    dashboard.evaluate(
        """() => {
            window.heard = [];
            const status = document.getElementById("announcement");
            new MutationObserver(() => heard.push(status.textContent))
                .observe(status, { childList: true, characterData: true, subtree: true });
        }"""
    )
    service.control("getUsers", "trip")
    expect(badge(dashboard, "getUsers")).to_have_text("Open")
    expect(sentence(dashboard)).to_contain_text("next call is its canary")

    assert dashboard.evaluate("heard") == ["getUsers is now open: tripped by hand."]
    assert dashboard.locator("[aria-live], [role=alert], [role=log]").count() == 0


def test_nothing_sticks_out_at_any_width_and_axe_finds_nothing_in_the_dark(browser, service):
    service.control("addEvent", "trip")
    service.control("getEvents", "isolate")
    faults, out = [], []
    with opened(browser, service.url, color_scheme="dark") as page:
        expect(badge(page, "getEvents")).to_have_text("Isolated")
        expect(page.locator("#tail li").first).to_be_visible()
        for width in (320, 400, 1024, 1440, 2560):
            page.set_viewport_size({"width": width, "height": 900})
            out += too_wide(page)
            if width in {400, 1440}:
                faults += faults_of(page)

    assert faults == []
    assert out == []


def test_the_page_follows_the_system_between_light_and_dark_and_remembers_a_choice(
    browser, service
):
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, service.url, color_scheme="dark") as page:
        dark = page.evaluate(ground)
        page.emulate_media(color_scheme="light")
        light = page.evaluate(ground)
        page.get_by_role("button", name="Theme: system").click()
        page.get_by_role("button", name="Theme: light").click()
        page.reload()
        expect(page.get_by_role("button", name="Theme: dark")).to_be_visible()
        chosen = page.evaluate(ground)

    assert dark != light
    assert chosen == dark


def test_nothing_moves_for_those_who_asked_for_that(browser, service):
    running = "document.getAnimations().length"
    with opened(browser, service.url) as page:
        expect(page.locator("#fresh")).to_contain_text("live")
        moving = page.evaluate(running)
    with opened(browser, service.url, reduced_motion="reduce") as page:
        expect(page.locator("#fresh")).to_contain_text("live")
        still = page.evaluate(running)

    assert moving > 0
    assert still == 0


def test_text_from_outside_stays_text_and_long_names_stay_in_their_place(browser, service):
    service.fault("getUsers", status=500)
    fetch(f"{service.url}/api/getUsers")
    service.control("addEvent", "trip")
    frame = next(frame for frame in whole_frames(service) if frame["failures"])
    body = f"data: {json.dumps(hostile(frame))}\n\n"
    with context(browser, viewport={"width": 400, "height": 900}) as page:
        page.route("**/stream", lambda route: route.fulfill(body=body, content_type=EVENTS))
        page.goto(f"{service.url}/dashboard")
        expect(page.locator("#tail li")).to_have_count(2)
        expect(page.locator(".name").first).to_have_text(HOSTILE)
        images = page.locator("img").count()
        out = too_wide(page)

    assert images == 0
    assert out == []


def whole_frames(service: Service) -> Iterator[dict[str, Any]]:
    """A frame comes whole at the beginning of the stream, and is up to a second old."""
    while True:
        with urllib.request.urlopen(f"{service.url}/dashboard/stream", timeout=10) as stream:
            yield json.loads(next(line[6:] for line in stream if line.startswith(b"data: ")))


def hostile(frame: dict[str, Any]) -> dict[str, Any]:
    """The frame with every text in it that could come from elsewhere replaced."""
    frame["version"] = frame["environment"] = HOSTILE
    failure, change = frame["failures"][-1], frame["transitions"][-1]
    failure |= {"number": 1, "path": HOSTILE, "cause": HOSTILE, "requestId": HOSTILE}
    change |= {"number": 1, "breaker": HOSTILE, "reason": HOSTILE}
    frame["failures"], frame["transitions"], frame["refusals"] = [failure], [change], []
    frame["breakers"] = [{**frame["breakers"][0], "name": HOSTILE}]
    last = {"what": HOSTILE, "at": 1, "duration": None, "requestId": HOSTILE}
    frame["breakers"][0]["lastFailure"] = last
    frame["breakers"][0]["rules"][0]["text"] = HOSTILE
    frame["endpoints"] = [{**frame["endpoints"][0], "route": HOSTILE, "method": HOSTILE}]
    frame["upstream"]["operations"] = [{**frame["upstream"]["operations"][0], "name": HOSTILE}]
    return frame


def test_operators_sign_in_and_out_in_production(browser, running):
    settings = {"ENV": "production", "OPS_TOKEN": "open-sesame-to-operators", "WORKERS": "2"}
    with (
        event_service(running.upstream, **settings) as (url, _),
        context(browser) as page,
    ):
        page.goto(f"{url}/dashboard")
        token = page.get_by_label("token")
        expect(token).to_be_focused()
        faults = faults_of(page)
        token.fill("guess")
        page.keyboard.press("Enter")
        expect(page.get_by_role("alert")).to_have_text("That is not the operators' token.")
        token.fill("open-sesame-to-operators")
        page.get_by_role("button", name="Sign in").click()
        expect(sentence(page)).to_contain_text("All five circuits are closed")
        expect(page.locator("#worker")).to_contain_text("2 workers")
        controls = page.get_by_role("button", name="Trip").count()
        mock = page.locator("#controls").is_visible()
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_role("button", name="Sign in")).to_be_visible()

    assert faults == []
    assert controls == 0
    assert not mock
