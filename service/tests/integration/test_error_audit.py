"""Whatever an upstream does ends in its row of the error table.

Each case goes over real sockets, for each operation where it makes sense. What is looked at: the
reply's row, that it tells nothing internal, the one log line that names the cause, what metrics
are told, and how the breaker counted it.
"""

import asyncio
import gzip
import re
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import free_port
from .observed_service import ObservedService, observed
from .scripted_upstream import (
    Script,
    ScriptedUpstream,
    by_path,
    replies,
    response,
    says,
    scripted,
    then_hang,
    then_reset,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

ALICE = b'{"id":"1","name":"Alice","events":["7"]}'
EVENT = b'{"id":"7","userId":"1","title":"Tea","description":""}'
GOOD = {
    "getUsers": b"[" + ALICE + b"]",
    "getUserById": ALICE,
    "getEvents": b"[" + EVENT + b"]",
    "getEventById": EVENT,
    "addEvent": b'{"success":true,"id":"9"}',
}
MARK = "what-the-upstream-said"
LEAKS = re.compile(
    rf"{MARK}|127\.0\.0\.1|\.invalid|os error|Error:|Traceback|httptools|msgspec|ById/7"
)
MAX_BODY = 4096


class Case(NamedTuple):
    script: Script
    status: int
    slug: str
    reason: str  # what the log line must contain
    outcome: str  # what metrics are told
    verdict: str  # how the breaker counts it
    retry_after: str | None = None


def failed(script: Script, reason: str) -> Case:
    return Case(script, 502, "upstream-error", reason, "failed", "failure")


def nonsense(script: Script, reason: str) -> Case:
    return Case(script, 502, "upstream-error", reason, "nonsense", "failure")


def refused(script: Script, reason: str) -> Case:
    return Case(script, 502, "upstream-error", reason, "refused", "success")


def misshapen(script: Script, reason: str) -> Case:
    return Case(script, 502, "upstream-error", reason, "misshapen", "neutral")


def slow(script: Script, reason: str) -> Case:
    return Case(script, 504, "upstream-timeout", reason, "timeout", "failure")


def unavailable(status: str, retry_after: str | None, told: str) -> Case:
    headers = () if retry_after is None else (f"Retry-After: {retry_after}",)
    script = replies(MARK.encode(), status=status, headers=headers)
    reason = f"status {status.split(' ', maxsplit=1)[0]}"
    return Case(script, 503, "upstream-unavailable", reason, "unavailable", "failure", told)


def encoded(body: bytes, coding: str) -> Script:
    return replies(body, headers=(f"Content-Encoding: {coding}",))


def chunked(*chunks: bytes) -> Script:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return says(head, *(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks))


def with_head(*lines: bytes) -> Script:
    return says(b"\r\n".join([b"HTTP/1.1 200 OK", *lines, b"", b""]))


WHOLE = response(b'{"told":"%b"}' % MARK.encode())
HEAD = WHOLE.index(b"\r\n\r\n") + 4
BOMB = gzip.compress(b" " * 1_000_000)

ALIKE: dict[str, Case] = {
    "reset before the reply": failed(then_reset(), "Connection reset"),
    "reset inside the headers": failed(then_reset(WHOLE[:20]), "Connection reset"),
    "reset after the headers": failed(then_reset(WHOLE[:HEAD]), "Connection reset"),
    "reset inside the body": failed(then_reset(WHOLE[:-5]), "Connection reset"),
    "closed before the reply": failed(says(), "closed by the peer"),
    "closed inside the headers": failed(says(WHOLE[:20]), "closed by the peer"),
    "closed inside the body": failed(says(WHOLE[:-5]), "closed by the peer"),
    "closed between two chunks": failed(chunked(b"[", b" "), "closed by the peer"),
    "chunk of no size": nonsense(
        says(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n"), "chunk size"
    ),
    "no reply": slow(then_hang(), "no reply in time"),
    "no end of the headers": slow(then_hang(WHOLE[:20]), "no reply in time"),
    "no body": slow(then_hang(WHOLE[:HEAD]), "body was not complete"),
    "no end of the body": slow(then_hang(WHOLE[:-5]), "body was not complete"),
    "a byte now and then": slow(
        says(*(piece for byte in WHOLE for piece in (bytes([byte]), 0.02))), "no reply in time"
    ),
    "garbage instead of HTTP": nonsense(says(b"\x00\xff\x16 hello\r\n\r\n"), "not HTTP/1.1"),
    "a banner of another protocol": nonsense(says(b"220 mail ready\r\n"), "not HTTP/1.1"),
    "impossible status": nonsense(replies(status="99 Low"), "status code"),
    "two lengths": nonsense(with_head(b"Content-Length: 1", b"Content-Length: 2"), "Length"),
    "length below nothing": nonsense(with_head(b"Content-Length: -1"), "Length"),
    "length beyond counting": nonsense(with_head(b"Content-Length: " + b"9" * 40), "Length"),
    "endless headers": nonsense(with_head(*[b"X-A: " + b"a" * 1000] * 1000), "65536 bytes"),
    "headers without number": nonsense(with_head(*[b"X-A: a"] * 1000), "256 header fields"),
    **{
        f"status {code}": failed(replies(MARK.encode(), status=f"{code} No"), f"status {code}")
        for code in (500, 501, 502, 504, 507, 599)
    },
    "503": unavailable("503 No", None, "1"),
    "429": unavailable("429 No", None, "1"),
    "503, in 7 s": unavailable("503 No", "7", "7"),
    "429, in 7 s": unavailable("429 No", "7", "7"),
    "503, in 0 s": unavailable("503 No", "0", "1"),
    "503, in the past": unavailable("503 No", "Sun, 06 Nov 1994 08:49:37 GMT", "1"),
    "503, next century": unavailable("503 No", "Fri, 06 Nov 2099 08:49:37 GMT", "86400"),
    "503, next century of old": unavailable("503 No", "Fri Nov  6 08:49:37 2099", "86400"),
    "503, some day": unavailable("503 No", "tomorrow", "1"),
    "503, before now": unavailable("503 No", "-7", "1"),
    "503, after a while and a half": unavailable("503 No", "1.5", "1"),
    "503, at the end of days": unavailable("503 No", "9" * 400, "86400"),
    "503, no text": unavailable("503 No", "\xb2\xff", "1"),
    "503, whose body never ends": unavailable("503 No", None, "1")._replace(
        script=then_hang(b"HTTP/1.1 503 No\r\nContent-Length: 10\r\n\r\n")
    ),
    "503, year 0": unavailable("503 No", "Sun, 06 Nov 0000 08:49:37 GMT", "1"),
}


# What a read is told of, and a write is not: any 2xx says that the event is stored.
UNREADABLE: dict[str, Script] = {
    "gigantic body, declared": then_hang(
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n" + b" " * 1_000_000
    ),
    "gigantic body, in chunks": chunked(*[b" " * 1024] * 100),
    "compressed in another way than it says": encoded(EVENT, "gzip"),
    "compressed and cut": encoded(gzip.compress(EVENT)[:-1], "gzip"),
    "compressed and gigantic": encoded(BOMB, "gzip"),
    "encoded by a header that is no text": encoded(EVENT, "\xff"),
}
NO_JSON = (b'{"id":"1",', b"<html>%b</html>" % MARK.encode(), b"NaN", b" \n", b'[{"id":"\xff"}]')


def _statuses(codes: Iterable[int], case: Case) -> dict[str, Case]:
    """Each of these statuses, with what is told of all of them."""
    return {
        f"status {code}": case._replace(
            script=replies(MARK.encode(), status=f"{code} No", headers=("Location: /elsewhere",)),
            reason=f"status {code} to ",
        )
        for code in codes
    }


def _no_json(*bodies: bytes) -> dict[str, Case]:
    return {f"body {body!r}": nonsense(replies(body), "the body is not JSON") for body in bodies}


def _shape(*bodies: bytes) -> dict[str, Case]:
    return {f"body {body!r}": misshapen(replies(body), "$") for body in bodies}


NO_CONTENT = says(b"HTTP/1.1 204 No Content\r\n\r\n")
NOT_KNOWN = Case(replies(), 404, "user-not-found", "no user in the reply", "not_found", "success")
NOT_OFFERED = Case(replies(), 502, "upstream-error", "", "not_found", "success")
REFUSED = refused(replies(), "")
REJECTED = REFUSED._replace(status=422, slug="upstream-rejected")
CONFLICT = REFUSED._replace(status=409, slug="upstream-conflict")
CODES = (
    300,
    301,
    302,
    303,
    304,
    307,
    308,
    400,
    401,
    403,
    404,
    405,
    408,
    409,
    410,
    413,
    415,
    418,
    422,
)

READ: dict[str, Case] = {
    "too large, declared": nonsense(
        UNREADABLE["gigantic body, declared"], f"more than {MAX_BODY} b"
    ),
    "too large, chunks": nonsense(
        UNREADABLE["gigantic body, in chunks"], f"more than {MAX_BODY} b"
    ),
    "compressed wrongly": nonsense(
        UNREADABLE["compressed in another way than it says"], "not what its content encoding says"
    ),
    "compressed and cut": nonsense(UNREADABLE["compressed and cut"], "not whole"),
    "compressed, gigantic": nonsense(
        UNREADABLE["compressed and gigantic"], f"more than {MAX_BODY} bytes when decoded"
    ),
    "encoded": nonsense(UNREADABLE["encoded by a header that is no text"], "content encoding"),
    **_no_json(*NO_JSON),
    **_shape(b'"%b"' % MARK.encode(), b"17", b"[" * MAX_BODY),
    **_statuses(CODES, REFUSED),
}

OWN: dict[str, dict[str, Case]] = {
    "getUsers": {
        **READ,
        **_statuses([404], NOT_OFFERED),
        **_no_json(b""),
        **_shape(b"{}", b"[null]", b"[1]", GOOD["getUserById"], b'[{"name":""}]'),
    },
    "getUserById": {
        **READ,
        **_statuses([404, 410, 400, 422], NOT_KNOWN),
        **{
            name: NOT_KNOWN._replace(script=script)
            for name, script in {
                "empty 200": replies(),
                "null": replies(b"null"),
                "204": NO_CONTENT,
            }.items()
        },
        **_no_json(b'{"id":"1","name":"\xff","events":[]}'),
        **_shape(b"{}", b"[]", b"[null]", b"false", GOOD["getUsers"]),
        **_shape(*(b'{"id":"1","name":"A","events":%b}' % e for e in (b"1", b"{}", b"[[]]"))),
    },
    "getEvents": {
        **READ,
        **_statuses([404], NOT_OFFERED),
        **_no_json(b"", b"[" + EVENT.replace(b"Tea", b"\xff") + b"]"),
        **_shape(b"{}", b"[null]", EVENT),
    },
    "getEventById": {
        **READ,
        **_statuses([404], NOT_OFFERED),
        "204": NOT_OFFERED._replace(script=NO_CONTENT, reason="no event in the reply"),
        "null": NOT_OFFERED._replace(script=replies(b"null"), reason="no event in the reply"),
        **_no_json(b"", EVENT.replace(b"Tea", b"\xff"), EVENT.replace(b"Tea", rb"\ud800")),
        **_shape(b"{}", b"[]", b"[" + EVENT + b"]", EVENT.replace(b'"Tea"', b"5")),
    },
    "addEvent": {
        **_statuses(CODES, REFUSED),
        **_statuses([400, 410, 413, 415, 422], REJECTED),
        **_statuses([409], CONFLICT),
        **_statuses([404], NOT_KNOWN),
        "success:false": refused(replies(b'{"success":false,"message":"no"}'), "success:false"),
    },
}

CASES = [
    pytest.param(operation, case, id=f"{operation}, {name}")
    for operation, own in OWN.items()
    for name, case in {**ALIKE, **own}.items()
]


@asynccontextmanager
async def in_front_of(url: str, **settings: object) -> AsyncIterator[ObservedService]:
    values = {
        "upstream_url": url,
        "retry_attempts": 1,
        "upstream_timeout": 0.3,
        "upstream_max_body": MAX_BODY,
        **settings,
    }
    async with observed(**values) as service:
        yield service


@asynccontextmanager
async def failing(operation: str, script: Script) -> AsyncIterator[ScriptedUpstream]:
    """An upstream where one operation goes by the script and the others are well."""
    scripts = {f"/{name}": replies(body) for name, body in GOOD.items()}
    async with scripted(by_path({**scripts, f"/{operation}": script})) as upstream:
        yield upstream


async def ask(service: ObservedService, operation: str) -> tuple[int, dict[str, str], bytes]:
    method, path = {
        "getUsers": ("GET", "/api/getUsers"),
        "getEvents": ("GET", "/api/getEvents"),
        "addEvent": ("POST", "/api/addEvent"),
    }.get(operation, ("GET", "/api/getEventsByUserId/1"))
    new = {"userId": "1", "title": "Tea"} if method == "POST" else None
    async with service.client.request(method, path, json=new) as reply:
        assert reply.content_type == "application/problem+json"
        headers = {name.lower(): value for name, value in reply.headers.items()}
        return reply.status, headers, await reply.read()


async def expect(service: ObservedService, operation: str, case: Case) -> None:
    status, headers, body = await ask(service, operation)

    assert (status, f'"/problems/{case.slug}"' in body.decode()) == (case.status, True), body
    assert not LEAKS.search(body.decode()), body
    assert not LEAKS.search(str(headers)), headers
    assert headers.get("retry-after") == case.retry_after
    line = one_line(service)
    assert line["status"] == case.status
    assert line["operation"] == operation
    assert case.reason in line["reason"]
    assert MARK not in str(service.lines)
    assert service.of(operation) == [case.verdict]
    assert [o for name, o in service.heard.calls if name == operation] == [case.outcome]


def one_line(service: ObservedService) -> dict[str, object]:
    (line,) = (line for line in service.lines if line["event"] == "request")
    return dict(line)


@pytest.mark.parametrize(("operation", "case"), CASES)
async def test_every_failure_of_the_upstream_has_its_row(operation: str, case: Case):
    # Only what waits for the time limit is to wait for little; the rest may meet a busy machine.
    limit = 0.4 if case.slug == "upstream-timeout" else 4.0
    async with (
        failing(operation, case.script) as upstream,
        in_front_of(upstream.url, upstream_timeout=limit) as service,
    ):
        await expect(service, operation, case)

        assert not any(call.path.startswith("/elsewhere") for call in upstream.calls)


@pytest.mark.parametrize(
    "script",
    [
        *UNREADABLE.values(),
        *map(replies, NO_JSON),
        *map(replies, (b"", b"null", b"{}", b"[]", b'"OK"', b'{"id":null}', b'{"success":null}')),
        replies(b"", status="201 Created"),
        replies(b"accepted", status="202 Accepted"),
        NO_CONTENT,
    ],
)
async def test_every_2xx_to_a_write_means_stored(script: Script):
    async with (
        failing("addEvent", script) as upstream,
        in_front_of(upstream.url, upstream_timeout=4) as service,
    ):
        new = {"userId": "1", "title": "Tea"}
        async with service.client.post("/api/addEvent", json=new) as reply:
            added = await reply.json()

        assert (reply.status, added["success"]) == (200, True)
        assert added["id"] == upstream.calls[0].headers["idempotency-key"]
        assert service.of("addEvent") == ["success"]
        assert [outcome for _, outcome in service.heard.calls] == ["ok"]


@pytest.mark.parametrize("operation", ["getUsers", "getUserById", "getEvents", "addEvent"])
class TestWithoutAConnection:
    async def test_nobody_listens(self, operation: str):
        case = failed(says(), "Connection refused")
        async with in_front_of(f"http://127.0.0.1:{free_port()}") as service:
            await expect(service, operation, case)

    async def test_no_address_has_this_name(self, operation: str):
        case = failed(says(), "could not be looked up")
        async with in_front_of("http://events.invalid", upstream_timeout=4) as service:
            await expect(service, operation, case)

    async def test_nobody_answers_the_attempt_to_connect(self, operation: str):
        with full_backlog() as url:
            case = slow(says(), "no connection in time")
            async with in_front_of(url) as service:
                await expect(service, operation, case)

    async def test_https_spoken_to_a_port_that_does_not(self, operation: str):
        async with (
            refusing_tls() as url,
            in_front_of(url, upstream_timeout=2) as service,
        ):
            await expect(service, operation, failed(says(), "TLS handshake"))

    async def test_a_certificate_that_nobody_vouches_for(self, operation: str, tmp_path: Path):
        tls = self_signed(tmp_path)
        async with (
            scripted(replies(), tls=tls) as upstream,
            in_front_of(upstream.url, upstream_timeout=2) as service,
        ):
            await expect(service, operation, failed(says(), "certificate"))
            assert not upstream.calls


@asynccontextmanager
async def refusing_tls() -> AsyncIterator[str]:
    """What a web server without TLS makes of a TLS greeting."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(response(status="400 Bad Request"))
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextmanager
def full_backlog() -> Iterator[str]:
    """The address of a socket that takes no further connection, nor refuses any."""
    with ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        address = listening.getsockname()
        for _ in range(3):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(address)
        yield f"http://127.0.0.1:{address[1]}"


def self_signed(folder: Path) -> ssl.SSLContext:
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    of_whom = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *of_whom, *files],
        check=True,
        capture_output=True,
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    return tls
