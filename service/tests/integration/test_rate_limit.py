import pytest

from event_service.middleware.rate_limit import api_key, client_address

from .conftest import Start
from .scraping import scrape

pytestmark = pytest.mark.anyio


class Clock:
    """Stands still until told otherwise."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def test_a_client_over_its_rate_is_told_when_to_come_back(start: Start):
    clock = Clock()
    async with start(rate_limit="2/minute", app={"clock": clock}) as client:
        for remaining in (1, 0):
            response = await client.get("/api/getUsers")
            assert response.status == 200
            assert response.headers["RateLimit-Policy"] == '"default";q=2;w=60'
            assert response.headers["RateLimit"] == f'"default";r={remaining};t=60'
        clock.now += 17.5

        refused = await client.get("/api/getUsers")

        assert refused.status == 429
        assert refused.content_type == "application/problem+json"
        assert (await refused.json())["type"] == "/problems/rate-limited"
        assert refused.headers["Retry-After"] == "43"
        assert refused.headers["RateLimit"] == '"default";r=0;t=43'
        assert refused.headers["RateLimit-Policy"] == '"default";q=2;w=60'
        clock.now += 43
        assert (await client.get("/api/getUsers")).status == 200


async def test_errors_too_say_where_a_client_stands(start: Start):
    async with start(rate_limit="9/minute") as client:
        response = await client.get("/api/getEventsByUserId/a%20b")

        assert response.status == 400
        assert response.headers["RateLimit"].startswith('"default";r=8;')


async def test_a_refusal_counts_for_the_route_that_it_kept_the_client_from(start: Start):
    async with start(rate_limit="1/hour") as client:
        await client.get("/api/getUsers")
        for path in ("getUsers", "getEventsByUserId/1", "getEventsByUserId/2", "nowhere"):
            assert (await client.get(f"/api/{path}")).status == 429
        assert (await client.post("/api/getUsers")).status == 429
        found = await scrape(client)

    by_id = "/api/getEventsByUserId/{id}"
    refused = "http_requests_total", "route"
    assert found.by(*refused, method="GET", status="429") == {
        "/api/getUsers": 1,
        by_id: 2,
        "unmatched": 1,
    }
    assert found.by(*refused, method="POST", status="429") == {"/api/getUsers": 1}
    assert found.of("http_request_duration_seconds_count", method="GET", route=by_id) == 2


async def test_of_several_rates_each_one_holds(start: Start):
    clock = Clock()
    async with start(rate_limit="3/minute;2/second", app={"clock": clock}) as client:
        statuses = []
        for _ in range(5):
            response = await client.get("/api/getUsers")
            statuses.append(response.status)
            clock.now += 0.1

        assert statuses == [200, 200, 429, 429, 429]
        assert response.headers["RateLimit-Policy"] == '"default";q=3;w=60, "default-2";q=2;w=1'
        assert response.headers["Retry-After"] == "1"


async def test_a_request_refused_by_one_rate_does_not_count_for_another(start: Start):
    clock = Clock()
    async with start(rate_limit="1/second;5/hour", app={"clock": clock}) as client:
        at_once = [(await client.get("/api/getUsers")).status for _ in range(6)]
        clock.now += 2
        later = await client.get("/api/getUsers")

    assert at_once == [200, 429, 429, 429, 429, 429]
    assert later.status == 200
    assert later.headers["RateLimit"] == '"default";r=0;t=1, "default-2";r=3;t=3598'


async def test_keys_made_up_one_after_the_other_run_into_the_limit_of_their_address(start: Start):
    async with start(rate_limit="5/hour", api_key_header="X-Api-Key") as client:
        statuses = [
            (await client.get("/api/getUsers", headers={"X-Api-Key": f"made up {n}"})).status
            for n in range(8)
        ]
        known = await client.get("/api/getUsers", headers={"X-Api-Key": "made up 0"})

    assert statuses == [200] * 5 + [429] * 3
    assert known.status == 200


async def test_operators_paths_are_not_limited(start: Start):
    async with start(rate_limit="1/hour") as client:
        for path in ("/livez", "/readyz", "/metrics") * 2:
            response = await client.get(path)

            assert response.status == 200
            assert "RateLimit" not in response.headers


async def test_clients_with_keys_are_counted_apart(start: Start):
    async with start(rate_limit="3/hour", api_key_header="X-Api-Key") as client:

        async def status(**headers: str) -> int:
            return (await client.get("/api/getUsers", headers=headers)).status

        assert [await status(**{"X-Api-Key": "one"}) for _ in range(4)] == [200, 200, 200, 429]
        assert [await status(**{"x-api-key": "two"}) for _ in range(4)] == [200, 200, 200, 429]
        # Each of the two keys came from this address, and took one of its requests.
        assert [await status() for _ in range(2)] == [200, 429]


async def test_forwarded_addresses_count_from_trusted_proxies_alone(start: Start):
    async def statuses(**settings: object) -> list[int]:
        async with start(rate_limit="1/hour", **settings) as client:
            return [
                (await client.get("/api/getUsers", headers={"X-Forwarded-For": address})).status
                for address in ("198.51.100.1", "198.51.100.2", "198.51.100.1")
            ]

    assert await statuses(trusted_proxies=["127.0.0.0/8"]) == [200, 200, 429]
    assert await statuses() == [200, 429, 429]
    assert await statuses(trusted_proxies=["10.0.0.0/8"]) == [200, 429, 429]


async def test_nobody_is_limited_unless_a_rate_is_set(start: Start):
    async with start() as client:
        assert "RateLimit" not in (await client.get("/api/getUsers")).headers


def scope(address: str, *headers: tuple[bytes, bytes]) -> dict[str, object]:
    return {"type": "http", "headers": list(headers), "client": (address, 1)}


def test_a_client_has_all_addresses_of_its_ipv6_network():
    key = client_address

    assert key(scope("2001:db8:1:2::1")) == key(scope("2001:db8:1:2:ffff::9"))
    assert key(scope("2001:db8:1:2::1")) != key(scope("2001:db8:1:3::1"))
    assert key(scope("::ffff:192.0.2.1")) == key(scope("192.0.2.1"))


def test_an_api_key_is_not_kept_in_the_clear():
    key = api_key("X-Api-Key")(scope("192.0.2.1", (b"x-api-key", b"secret")))

    assert key is not None
    assert "secret" not in key
    assert key != api_key("X-Api-Key")(scope("192.0.2.1", (b"x-api-key", b"secret")))
