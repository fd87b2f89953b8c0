"""No value of any header that is read makes the service answer 500."""

import random
from collections import Counter
from collections.abc import Callable

import pytest

from .conftest import Start
from .raw_http import connection

pytestmark = pytest.mark.anyio

TOKEN = "a token for the test"
PATHS = {
    "accept": ["GET /metrics", "GET /", "GET /problems", "GET /docs", "GET /api/getUsers"],
    "accept-encoding": ["GET /metrics", "GET /docs"],
    "authorization": ["GET /metrics", "GET /dashboard"],
    "baggage": ["GET /api/getUsers"],
    "content-encoding": ["POST /api/addEvent"],
    "content-length": ["POST /api/addEvent", "GET /api/getUsers", "POST /dashboard/session"],
    "content-type": ["POST /api/addEvent", "POST /dashboard/session"],
    "cookie": ["GET /metrics", "GET /dashboard"],
    "forwarded": ["GET /api/getUsers"],
    "host": ["DELETE /dashboard/session", "GET /docs", "GET /api/getUsers"],
    "expect": ["POST /api/addEvent"],
    "idempotency-key": ["POST /api/addEvent"],
    "if-modified-since": ["GET /dashboard", "GET /docs"],
    "if-none-match": ["GET /dashboard", "GET /openapi.json", "GET /api/getUsers"],
    "last-event-id": ["HEAD /dashboard/stream"],
    "origin": ["DELETE /dashboard/session", "POST /dashboard/session", "GET /api/getUsers"],
    "prefer": ["POST /api/addEvent"],
    "range": ["GET /dashboard", "GET /docs", "GET /api/getUsers"],
    "sec-fetch-site": ["DELETE /dashboard/session"],
    "traceparent": ["GET /api/getUsers"],
    "tracestate": ["GET /api/getUsers"],
    "transfer-encoding": ["POST /api/addEvent"],
    "user-agent": ["GET /api/getUsers"],
    "x-dashboard-control": ["POST /dashboard/controls/breakers/addEvent/reset"],
    "x-api-key": ["GET /api/getUsers"],
    "x-forwarded-for": ["GET /api/getUsers", "GET /metrics"],
    "x-forwarded-host": ["DELETE /dashboard/session"],
    "x-forwarded-proto": ["DELETE /dashboard/session"],
    "x-request-id": ["GET /api/getUsers"],
    "access-control-request-headers": ["OPTIONS /api/getUsers"],
    "access-control-request-method": ["OPTIONS /api/getUsers"],
}
NO_URLS = ["http://[", "[::1", "a]b", "//["]
# Each of these broke a parser once.
KNOWN = {
    "accept": ["text/plain; version=zzz", "text/plain;version=1.0.0;q=x"],
    "content-length": ["2, 2", "+2", "1e3", "0x2", "2_0", "\xb2"],
    "content-type": ["application/json;charset", 'application/json; a="'],
    "cookie": ['prefs={"x":1}', "flag", "path=/x"],
    "expect": ["100-continue"],
    "forwarded": ['for="', 'for=203.0.113.9;host="for=6.6.6.6"', "for=x"],
    "host": NO_URLS,
    "if-none-match": ['W/"', "*"],
    "origin": NO_URLS,
    "prefer": ["respond-async, wait=", "wait=1e9999"],
    "range": ["bytes=-", "bytes=9-1", "bytes=1e9-"],
    "transfer-encoding": ["gzip, chunked", "chunked, chunked"],
}
LARGE = ["x" * 20_000, "=" * 5_000, "\xff" * 999]
PIECES = """\
http:// https:// // [ ] [::1 a]b [v1.x] : ; , = " ' \\ / ? # @ % %zz %00 * ** */* text/plain
version=zzz version=9.9.9 q= q=x q=-1 q=1e9 application/json charset= charset="utf charset=utf-16
for=x for=" for=[ 127.0.0.1 ::1 fe80::1%eth0 999.999.999.999 Bearer Basic event_service_operator=
1.2 00- -01 respond-async wait= wait=-1 wait=1e999 wait=99999999999999999999 localhost:99999999
localhost:x null \xe9 \xff\xfe \xa0 é none 0 -1 1e309 NaN \t""".split()  # noqa: SIM905  a list of strings would be unreadable


def malformed(chance: random.Random) -> str:
    text = "".join(chance.choices(PIECES, k=chance.randint(1, 5)))
    return text * chance.choice([1, 1, 1, 40])


def request(path: str, header: str, value: str, number: int) -> bytes:
    """A request that is fine but for one header."""
    body = "{}" if path.startswith("POST") else ""
    fine = {
        "host": "x",
        # From an address of its own, or a few wrong tokens would be the last that is looked at.
        "x-forwarded-for": f"192.0.2.{number}",
        "forwarded": f"for=192.0.2.{number}",
        **({"content-length": "2", "content-type": "application/json"} if body else {}),
    }
    if header not in {"authorization", "cookie"}:
        fine["authorization"] = f"Bearer {TOKEN}"
    lines = [f"{name}: {text}" for name, text in {**fine, header: value}.items()]
    head = [f"{path} HTTP/1.1", *lines, "connection: close", "", body]
    return "\r\n".join(head).encode("latin-1")


@pytest.mark.slow
@pytest.mark.parametrize("env", ["development", "production"])
async def test_no_malformed_header_makes_it_answer_500(
    start: Start, env: str, times: Callable[[int, int], int]
):
    chance = random.Random(7)
    found: Counter[int] = Counter()
    faults = []
    settings = {
        "env": env,
        "api_key_header": "X-Api-Key",
        "rate_limit": "1000000/second",
        "trusted_proxies": ["127.0.0.0/8"],
        "cors_origins": ["https://app.test"],
        "forwarded_header": "forwarded" if env == "production" else "x-forwarded-for",
        "ops_token": TOKEN if env == "production" else None,
        "log_level": "error",
    }
    async with start(**settings) as client:
        for header, paths in PATHS.items():
            known = [*KNOWN.get(header, []), *LARGE]
            tried = [(path, value) for path in paths for value in known]
            tried += [(chance.choice(paths), malformed(chance)) for _ in range(times(14, 60))]
            for number, (path, value) in enumerate(tried):
                async with connection(client) as raw:
                    await raw.send(request(path, header, value, number))
                    answer = await raw.answer(to_head=path.startswith("HEAD"))
                status = answer.status
                found[status] += 1
                if status >= 500:
                    faults.append((status, path, header, value))

    assert faults == []
    assert len(found) > 4, "the requests reach more than one check"
