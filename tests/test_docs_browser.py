"""The page /docs as people use it, on a phone and on a desk: real Chromium, the real service."""

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest
from playwright.sync_api import Browser, Page, expect

from .processes import event_service, mock_upstream

pytestmark = [pytest.mark.browser, pytest.mark.needs("chromium")]

TOKEN = "a-token-of-operators"
WIDTHS = {"phone": 390, "desk": 1400}


class Services(NamedTuple):
    open: str
    guarded: str


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    # Replies far larger than any screen.
    options = ["--users", "300", "--events-per-user", "20", "--event-delay", "0.01"]
    with (
        mock_upstream(*options) as upstream,
        event_service(upstream) as (open_to_all, _),
        event_service(upstream, ENV="production", OPS_TOKEN=TOKEN) as (guarded, _),
    ):
        yield Services(open_to_all, guarded)


@pytest.fixture(params=WIDTHS.values(), ids=WIDTHS)
def page(request, browser: Browser, services: Services) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": request.param, "height": 900})
    page = context.new_page()
    page.goto(f"{services.open}/docs")
    yield page
    context.close()


def unfold(page: Page) -> None:
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")


def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    width: int = page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return width


def test_the_page_never_scrolls_sideways_whatever_comes_back(page: Page):
    unfold(page)
    assert overflow(page) == 0

    forms = page.locator("form")
    assert forms.count() > 8
    for form in forms.all():
        form.get_by_role("button", name="Send").click()
        expect(form.locator("output pre")).to_be_visible()

    assert overflow(page) == 0
    reply = page.locator("#getEvents output pre")
    box = reply.bounding_box()
    assert box is not None
    assert box["height"] < 600
    assert reply.evaluate("each => each.scrollHeight") > 10_000


def test_a_reply_that_is_a_page_is_reported_without_its_content(page: Page):
    unfold(page)

    page.locator("#dashboard").get_by_role("button", name="Send").click()

    reply = page.locator("#dashboard output pre")
    expect(reply).to_contain_text(re.compile(r"A page of \d+ bytes: open http://.+/dashboard"))
    expect(reply).not_to_contain_text("<html")


def test_a_command_asks_where_the_page_was_opened(browser: Browser, services: Services):
    by_name = services.open.replace("127.0.0.1", "localhost")
    context = browser.new_context()
    page = context.new_page()
    for address in (services.open, by_name):
        page.goto(f"{address}/docs")
        unfold(page)
        commands = page.locator(".curl").all_inner_texts()
        assert len(commands) > 8
        assert all(command.startswith(f"curl {address}/") for command in commands)
    context.close()


def test_a_reply_to_an_operator_comes_with_the_token(browser: Browser, services: Services):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"{services.guarded}/docs")
    unfold(page)
    metrics = page.locator("#metrics")
    expect(metrics).to_contain_text(
        f'curl {services.guarded}/metrics -H "Authorization: Bearer $EVENT_SERVICE_OPS_TOKEN"'
    )
    users = page.locator("#getUsers .curl")
    assert "Authorization" not in users.inner_text()

    metrics.get_by_label("Authorization").fill(f"Bearer {TOKEN}")
    metrics.get_by_role("button", name="Send").click()

    expect(metrics.locator("output pre")).to_contain_text("http_requests_total")
    context.close()
