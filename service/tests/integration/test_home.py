import re

import pytest

from .conftest import Start

pytestmark = pytest.mark.anyio

BROWSER = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}


async def test_a_browser_gets_a_page_of_links_that_lead_somewhere(start: Start):
    async with start() as client:
        page = await client.get("/", headers=BROWSER)
        text = await page.text()

        assert page.content_type == "text/html"
        assert page.headers["Vary"] == "Accept"
        links = re.findall(r'href="([^"]+)"', text)
        assert {"/dashboard", "/docs", "/problems", "/metrics"} <= set(links)
        for link in links:
            assert (await client.get(link)).status == 200, link


async def test_a_program_gets_an_index_of_what_there_is(start: Start):
    async with start() as client:
        reply = await client.get("/")
        index = await reply.json()

    assert reply.content_type == "application/json"
    assert (index["name"], index["version"]) == ("Event Service", "1.0.0")
    assert index["links"]["docs"] == "/docs"
    assert {"method": "POST", "path": "/api/addEvent"}.items() <= max(
        index["operations"], key=lambda each: each["path"] == "/api/addEvent"
    ).items()


async def test_nothing_is_linked_that_does_not_exist(start: Start):
    async with start(env="production") as client:
        page = await (await client.get("/", headers=BROWSER)).text()
        index = await (await client.get("/")).text()

    assert "/dashboard" not in page + index
    assert "/metrics" not in page + index


@pytest.mark.parametrize("headers", [BROWSER, {}])
async def test_the_problems_are_listed_by_status(start: Start, headers: dict[str, str]):
    async with start() as client:
        reply = await client.get("/problems", headers=headers)
        text = await reply.text()

    assert reply.status == 200
    types = re.findall(r"/problems/[a-z-]+", text)
    assert types.index("/problems/invalid-request") < types.index("/problems/circuit-open")
    if not headers:
        statuses = [each["status"] for each in await reply.json()]
        assert statuses == sorted(statuses)
        assert len(statuses) > 15


async def test_there_is_an_icon(start: Start):
    async with start() as client:
        reply = await client.get("/favicon.ico")

        assert (reply.status, reply.content_type) == (200, "image/x-icon")
        assert (await reply.read()).startswith(b"\0\0\1\0")
