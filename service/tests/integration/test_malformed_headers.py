"""No value of any header that is read makes the service answer 500."""

import random
from collections import Counter

import pytest

from .conftest import Start
from .raw_http import connection

pytestmark = pytest.mark.anyio

REQUESTS_PER_HEADER = 60
PATHS = {
    "accept": ["GET /metrics", "GET /", "GET /problems", "GET /docs", "GET /api/getUsers"],
    "accept-encoding": ["GET /metrics", "GET /docs"],
    "authorization": ["GET /metrics", "GET /dashboard"],
    "content-type": ["POST /api/addEvent", "POST /dashboard/session"],
    "cookie": ["GET /metrics", "GET /dashboard"],
    "forwarded": ["GET /api/getUsers"],
    "host": ["DELETE /dashboard/session", "GET /docs", "GET /api/getUsers"],
    "idempotency-key": ["POST /api/addEvent"],
    "origin": ["DELETE /dashboard/session", "POST /dashboard/session", "GET /api/getUsers"],
    "prefer": ["POST /api/addEvent"],
    "sec-fetch-site": ["DELETE /dashboard/session"],
    "traceparent": ["GET /api/getUsers"],
    "tracestate": ["GET /api/getUsers"],
    "x-api-key": ["GET /api/getUsers"],
    "x-forwarded-for": ["GET /api/getUsers"],
    "x-forwarded-proto": ["DELETE /dashboard/session"],
    "x-request-id": ["GET /api/getUsers"],
    "access-control-request-method": ["OPTIONS /api/getUsers"],
}
# Each of these broke a parser once.
KNOWN = [
    *("http://[", "[::1", "a]b", "//[", "text/plain; version=zzz", "text/plain;version=1.0.0;q=x"),
    *('for="', 'for=203.0.113.9;host="for=6.6.6.6"', "for=x", 'prefs={"x":1}', "flag", "path=/x"),
    *("application/json;charset", 'application/json; a="', "respond-async, wait=", "wait=1e9999"),
]
PIECES = """\
http:// https:// // [ ] [::1 a]b [v1.x] : ; , = " ' \\ / ? # @ % %zz %00 * ** */* text/plain
version=zzz version=9.9.9 q= q=x q=-1 q=1e9 application/json charset= charset="utf charset=utf-16
for=x for=" for=[ 127.0.0.1 ::1 fe80::1%eth0 999.999.999.999 Bearer Basic event_service_operator=
1.2 00- -01 respond-async wait= wait=-1 wait=1e999 wait=99999999999999999999 localhost:99999999
localhost:x null \xe9 \xff\xfe \xa0 é none 0 -1 1e309 NaN \t""".split()  # noqa: SIM905  a list of strings would be unreadable


def malformed(chance: random.Random) -> str:
    text = "".join(chance.choices(PIECES, k=chance.randint(1, 5)))
    return text * chance.choice([1, 1, 1, 40])


@pytest.mark.parametrize("env", ["development", "production"])
async def test_no_malformed_header_makes_it_answer_500(start: Start, env: str):
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
        "ops_token": "a token for the test" if env == "production" else None,
        "log_level": "error",
    }
    async with start(**settings) as client:
        for header, paths in PATHS.items():
            for number in range(REQUESTS_PER_HEADER):
                path = paths[number % len(paths)]
                known = KNOWN[number // len(paths) : number // len(paths) + 1]
                value = known[0] if known else malformed(chance)
                lines = [f"{path} HTTP/1.1", f"{header}: {value}", "connection: close"]
                if header != "host":
                    lines.append("host: x")
                if path.startswith("POST"):
                    lines.append("content-length: 2")
                    if header != "content-type":
                        lines.append("content-type: application/json")
                body = "{}" if path.startswith("POST") else ""
                sent = "\r\n".join([*lines, "", body]).encode("latin-1")
                async with connection(client) as raw:
                    await raw.send(sent)
                    status = (await raw.answer()).status
                found[status] += 1
                if status >= 500:
                    faults.append((status, path, header, value))

    assert faults == []
    assert found.total() == REQUESTS_PER_HEADER * len(PATHS)
    assert len(found) > 4, "the requests reach more than one check"
