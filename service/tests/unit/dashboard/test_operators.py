import pytest

from event_service.dashboard.operators import COOKIE, GUESSES, LIFETIME, OperatorAccess
from event_service.errors import RateLimited

NOW = 1_700_000_000.0


def access(token: str = "open sesame", *, now: float = NOW) -> OperatorAccess:
    return OperatorAccess(token, wall_clock=lambda: now)


def cookie(session: str) -> list[tuple[bytes, bytes]]:
    return [(b"cookie", f"other=1; {COOKIE}={session}; last=2".encode())]


@pytest.mark.parametrize(
    ("header", "admitted"),
    [
        (b"Bearer open sesame", True),
        (b"bearer open sesame", True),
        (b"Bearer open sesam", False),
        (b"Bearer ", False),
        (b"Basic open sesame", False),
        (b"open sesame", False),
        (b"Bearer \xff\xfe", False),
    ],
)
def test_the_bearer_token_is_admitted_and_no_other(header, admitted):
    assert access().admits([(b"authorization", header)], client="192.0.2.1") is admitted


def test_a_request_without_credentials_is_not_admitted():
    assert not access().admits([(b"host", b"localhost")], client="192.0.2.1")


def test_a_session_is_admitted_until_it_ends():
    session = access().issue()

    assert access(now=NOW + LIFETIME - 1).admits(cookie(session), client="192.0.2.1")
    assert not access(now=NOW + LIFETIME).admits(cookie(session), client="192.0.2.1")


def test_a_session_ends_with_the_token_it_was_issued_for():
    assert not access("another").admits(cookie(access().issue()), client="192.0.2.1")


def test_a_session_holds_no_token_and_cannot_be_stretched():
    ends, _, signature = access().issue().partition(".")

    assert "sesame" not in ends + signature
    assert not access().admits(cookie(f"{int(ends) + 1}.{signature}"), client="192.0.2.1")


@pytest.mark.parametrize("session", ["", ".", "9" * 400, "1700000001.", "x.y", '"'])
def test_an_invalid_cookie_is_not_a_session(session):
    assert not access().admits(cookie(session), client="192.0.2.1")


@pytest.mark.parametrize(
    "others",
    [
        *("", 'prefs={"x":1}; ', "flag; ", "path=/x; ", 'a="; ', "=; ", ";;; ", "$Version=1; "),
        *("é=ü; ", "a[b]=1; ", "a b=1; ", "a:b=1; ", "a,b=1,2; ", 'a="x\\"y; ', "expires=Mon, 1; "),
        *("httponly; secure; ", "a=\x00\x7f; ", "a==b=; ", f"{COOKIE}; ", f"x{COOKIE}=1; "),
    ],
)
def test_a_session_is_admitted_beside_any_other_cookie(others):
    operators = access()
    session = f"{COOKIE}={operators.issue()}"

    for cookies in (f"{others}{session}", f"{session}; {others}", f"{COOKIE}=old; {session}"):
        header = [(b"cookie", cookies.encode())]
        assert operators.admits(header, client="192.0.2.1")
    two_lines = [(b"cookie", others.encode()), (b"cookie", session.encode())]
    assert operators.admits(two_lines, client="192.0.2.1")


def test_who_sends_many_wrong_tokens_has_to_wait_and_nobody_else_has():
    now = 100.0
    operators = OperatorAccess("open sesame", clock=lambda: now)
    for guess in range(GUESSES):
        assert not operators.knows(str(guess), client="192.0.2.1")

    with pytest.raises(RateLimited) as refused:
        operators.knows("open sesame", client="192.0.2.1")

    assert refused.value.retry_after == 60.0
    assert operators.knows("open sesame", client="192.0.2.2")
    now += 60.0
    assert operators.knows("open sesame", client="192.0.2.1")
