"""A running service behind its dashboard, and what tests ask of the page."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, ViewportSize, expect

from .processes import Process

# A folder for pictures of each state; "": none are taken.
PICTURES = os.environ.get("DASHBOARD_PICTURES", "")
Theme = Literal["light", "dark"]
DESK, PHONE = ViewportSize(width=1440, height=900), ViewportSize(width=390, height=844)


class Service(NamedTuple):
    """The service in front of a mock, both in processes of their own."""

    url: str
    upstream: str
    process: Process

    def fault(self, operation: str, **fault: Any) -> None:
        self._admin("PUT", f"/faults/{operation}", fault)

    def heal(self) -> None:
        self._admin("POST", "/reset", {})

    def add_event(self) -> int:
        return fetch(f"{self.url}/api/addEvent", "POST", {"userId": "1", "title": "Standup"})

    def control(self, breaker: str, action: str) -> None:
        path = f"/dashboard/controls/breakers/{breaker}/{action}"
        assert fetch(self.url + path, "POST", {}, **{"x-dashboard-control": "1"}) == 200

    def _admin(self, method: str, path: str, body: dict[str, Any]) -> None:
        assert fetch(f"{self.upstream}/__admin{path}", method, body) == 200


def fetch(url: str, method: str = "GET", body: Any = None, **headers: str) -> int:
    request = urllib.request.Request(
        url,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


@contextmanager
def opened(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A dashboard with its first frame on the page; any complaint of the browser is an error."""
    with context(browser, **options) as page:
        complaints: list[str] = []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(f"{url}/dashboard")
        expect(page.locator("[data-breaker]")).to_have_count(5)
        yield page
        # What the tests break on purpose, the browser may say so.
        unexpected = [
            text
            for text in complaints
            if "net::ERR_" not in text and "Failed to load resource" not in text
        ]
        assert unexpected == []


@contextmanager
def context(browser: Browser, **options: Any) -> Iterator[Page]:
    made = browser.new_context(**options)
    made.set_default_timeout(10_000)
    yield made.new_page()
    made.close()


def badge(page: Page, breaker: str) -> Locator:
    return page.locator(f"[data-breaker={breaker}] .badge")


def sentence(page: Page) -> Locator:
    return page.locator("#sentence")


def faults_of(page: Page) -> list[str]:
    found = Axe().run(page, options={"resultTypes": ["violations"]}).response
    return [
        f"{fault['id']}: {node['html']} {node['failureSummary']}"
        for fault in found["violations"]
        for node in fault["nodes"]
    ]


def too_wide(page: Page) -> list[str]:
    """What sticks out of the page to the right."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("body *")]
            .filter((each) => each.getBoundingClientRect().right > innerWidth + 1)
            .filter((each) => !each.closest(".hidden, .skip, svg"))
            .map((each) => each.outerHTML.slice(0, 90))"""
    )
    return found


def tile(page: Page, breaker: str) -> Locator:
    return page.locator(f"[data-breaker={breaker}]")


def gauge(page: Page, title: str) -> Locator:
    return page.locator(".gauge", has=page.get_by_text(title, exact=True))


def is_in_order(
    page: Page, name: str, *, at: str = "body", themes: Sequence[Theme] = ("light",)
) -> None:
    """Axe finds nothing, and nothing sticks out on a phone.

    Takes the pictures of this state, of what stands `at`, where PICTURES are wanted.
    """
    both: Sequence[Theme] = ("light", "dark")
    faults: list[str] = []
    for theme in both if PICTURES else themes:
        page.emulate_media(color_scheme=theme)
        faults += faults_of(page)
        _take(page, f"{name}-{theme}", at)
    page.emulate_media(color_scheme="light")
    page.set_viewport_size(PHONE)
    out = too_wide(page)
    _take(page, f"{name}-phone", at)
    page.set_viewport_size(DESK)

    assert faults == []
    assert out == []


def _take(page: Page, name: str, at: str) -> None:
    if not PICTURES:
        return
    page.mouse.move(0, 0)
    page.locator(at).evaluate("part => part.scrollIntoView()")
    page.screenshot(path=Path(PICTURES) / f"dashboard-{name}.png")
