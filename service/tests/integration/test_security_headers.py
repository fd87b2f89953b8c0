import pytest

from .conftest import Start
from .raw_http import connection

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/getUsers", 200),
        ("GET", "/api/nothing", 404),
        ("POST", "/api/addEvent", 415),
        ("OPTIONS", "/api/getUsers", 405),
        ("GET", "/livez", 200),
        ("GET", "/metrics", 200),
        ("GET", "/docs", 200),
        ("GET", "/problems/overloaded", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/dashboard", 200),
    ],
)
async def test_every_response_tells_browsers_to_be_careful(
    start: Start, method: str, path: str, status: int
):
    async with start() as client, client.request(method, path) as response:
        assert response.status == status
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Referrer-Policy"] == "no-referrer"
        assert response.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert len(response.headers.getall("Content-Security-Policy")) == 1
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
        assert len(response.headers.getall("Cache-Control")) == 1
        assert "X-Request-ID" in response.headers


@pytest.mark.parametrize("path", ["/api/getUsers", "/api/nothing", "/livez", "/metrics"])
async def test_changing_replies_are_not_cached(start: Start, path: str):
    async with start() as client, client.get(path) as response:
        assert response.headers["Cache-Control"] == "no-store"


async def test_the_server_does_not_say_what_it_runs_on(start: Start):
    async with start() as client, connection(client) as raw:
        await raw.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        headers = (await raw.answer()).headers

        assert "x-powered-by" not in headers
        assert not any(character.isdigit() for character in headers.get("server", ""))


SECRET = "do-not-tell-anyone"


async def test_secrets_are_on_no_page_and_in_no_error(start: Start):
    async with start(
        env="production",
        ops_token=SECRET,
        upstream_headers={"Authorization": f"Bearer {SECRET}"},
        upstream_url="http://127.0.0.1:9",
    ) as client:
        operator = {"Authorization": f"Bearer {SECRET}"}
        for path in ("/metrics", "/dashboard", "/docs", "/openapi.json", "/readyz"):
            assert SECRET not in await (await client.get(path, headers=operator)).text()
        for path in ("/api/getUsers", "/api/getEventsByUserId/1"):
            assert SECRET not in await (await client.get(path)).text()
