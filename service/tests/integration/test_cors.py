import pytest

from event_service.settings import Settings

from .conftest import Start

pytestmark = pytest.mark.anyio

OURS = "https://app.example.com"
THEIRS = "https://evil.example"


def preflight(origin: str, method: str = "POST") -> dict[str, str]:
    return {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type",
    }


async def test_unless_configured_no_other_origin_gets_in(start: Start):
    async with start() as client:
        response = await client.get("/api/getUsers", headers={"Origin": OURS})
        asked = await client.options("/api/addEvent", headers=preflight(OURS))

        assert response.status == 200
        assert asked.status == 405
        for headers in (response.headers, asked.headers):
            assert not [name for name in headers if name.lower().startswith("access-control")]


async def test_a_configured_origin_may_read_results_and_errors(start: Start):
    async with start(cors_origins=[OURS]) as client:
        for path, status in (("/api/getUsers", 200), ("/api/getEventsByUserId/99", 404)):
            response = await client.get(path, headers={"Origin": OURS})

            assert response.status == status
            assert response.headers["Access-Control-Allow-Origin"] == OURS
            assert response.headers["Vary"] == "Origin"
            exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
            assert {"X-Request-ID", "Retry-After", "RateLimit", "RateLimit-Policy"} < set(exposed)
            assert {"Age", "Cache-Status"} < set(exposed)
            assert "Access-Control-Allow-Credentials" not in response.headers


@pytest.mark.parametrize("origin", [THEIRS, f"{OURS}.evil.example", OURS.upper(), "null"])
async def test_an_origin_that_only_looks_like_it_may_not(start: Start, origin: str):
    async with start(cors_origins=[OURS]) as client:
        response = await client.get("/api/getUsers", headers={"Origin": origin})
        asked = await client.options("/api/addEvent", headers=preflight(origin))

        for headers in (response.headers, asked.headers):
            assert "Access-Control-Allow-Origin" not in headers
            assert headers["Vary"] == "Origin"


async def test_a_cache_keeps_replies_without_an_origin_apart_too(start: Start):
    async with start(cors_origins=[OURS]) as client:
        assert (await client.get("/api/getUsers")).headers["Vary"] == "Origin"


async def test_a_preflight_is_answered_without_a_body(start: Start):
    async with start(cors_origins=[OURS], api_key_header="X-Api-Key") as client:
        response = await client.options("/api/addEvent", headers=preflight(OURS))

        assert response.status == 204
        assert await response.read() == b""
        assert response.headers["Access-Control-Allow-Origin"] == OURS
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        allowed = response.headers["Access-Control-Allow-Headers"].lower().split(", ")
        assert {"content-type", "idempotency-key", "x-request-id", "x-api-key"} <= set(allowed)
        assert "X-Request-ID" in response.headers


async def test_any_origin_may_be_let_in_but_never_with_credentials(start: Start):
    async with start(cors_origins=["*"]) as client:
        response = await client.get("/api/getUsers", headers={"Origin": THEIRS})
        asked = await client.options("/api/addEvent", headers=preflight(THEIRS))

        for headers in (response.headers, asked.headers):
            assert headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in headers


@pytest.mark.parametrize(
    "value",
    ["app.example.com", "https://app.example.com/", "*,https://app.example.com", "null", "ftp://x"],
)
def test_an_invalid_origin_stops_the_start(value: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENT_SERVICE_CORS_ORIGINS", value)

    with pytest.raises(ValueError, match="origins such as"):
        Settings()


def test_several_origins_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EVENT_SERVICE_CORS_ORIGINS", "https://a.example, http://localhost:5173")

    assert Settings().cors_origins == ["https://a.example", "http://localhost:5173"]
