"""`event-service check-upstream` as a person with an upstream of their own meets it."""

import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator

import pytest

from .processes import BIN, free_port, mock_upstream

SECRET = "Bearer of-the-upstream"


def check(url: str, *options: str, **settings: str) -> tuple[int, str]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("EVENT_SERVICE_")}
    named = {"ENV": "testing", "UPSTREAM_URL": url, **settings}
    done = subprocess.run(
        [BIN / "event-service", "check-upstream", *options],
        env={**inherited, **{f"EVENT_SERVICE_{name}": value for name, value in named.items()}},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module", params=["plain", "rest", "nulls", "numbers"])
def dialect(request) -> Iterator[tuple[str, str]]:
    with mock_upstream("--event-delay", "0", "--dialect", request.param) as url:
        yield request.param, url


def journal(url: str) -> dict[str, int]:
    with urllib.request.urlopen(f"{url}/__admin/requests", timeout=10) as response:
        counts: dict[str, int] = json.load(response)["counts"]
        return counts


def fault(url: str, operation: str, what: dict[str, object]) -> None:
    request = urllib.request.Request(
        f"{url}/__admin/faults/{operation}", json.dumps(what).encode(), method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()


def reset(url: str) -> None:
    request = urllib.request.Request(f"{url}/__admin/reset", method="POST")
    urllib.request.urlopen(request, timeout=10).close()


def test_an_upstream_of_any_dialect_is_well_and_called_once_for_each_read(dialect):
    name, url = dialect
    reset(url)

    code, said = check(url)

    assert code == 0, said
    assert said.startswith(f"{url}\n\noperation ")
    assert ("description: null, taken as" in said) == (name == "nulls")
    assert ("id: numbers, taken as text" in said) == (name == "numbers")
    assert journal(url) == {
        "getUsers": 1,
        "getUserById": 1,
        "getEvents": 1,
        "getEventById": 1,
        "addEvent": 0,
    }


def test_an_event_is_added_when_told_to(dialect):
    name, url = dialect
    reset(url)

    code, said = check(url, "--write", "--user", "2")

    assert code == 0, said
    whose = "the upstream's id, 1001" if name == "numbers" else "our id"
    assert f"stored under {whose}" in said
    assert journal(url)["addEvent"] == 1


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with mock_upstream("--event-delay", "0") as url:
        yield url


@pytest.mark.parametrize(
    ("operation", "what", "told"),
    [
        ("getUsers", {"status": 401}, "EVENT_SERVICE_UPSTREAM_HEADERS"),
        ("getUserById", {"status": 404}, "EVENT_SERVICE_UPSTREAM_PATHS (the path of getUserById)"),
        ("getEvents", {"body": "<html>"}, "the body is not JSON"),
        ("getEventById", {"body": '{"id":"101","title":{}}'}, "$.title: expected str, got object"),
        ("getEvents", {"status": 302, "headers": {"Location": "/login?t=s"}}, "Location: /login;"),
        ("getUsers", {"mode": "hang"}, "EVENT_SERVICE_UPSTREAM_TIMEOUT"),
        ("getUsers", {"mode": "oversize"}, "EVENT_SERVICE_UPSTREAM_MAX_BODY"),
    ],
)
def test_a_fault_is_reported_with_the_setting_that_fixes_it(upstream, operation, what, told):
    reset(upstream)
    fault(upstream, operation, what)
    headers = json.dumps({"authorization": SECRET})

    code, said = check(upstream, UPSTREAM_HEADERS=headers)

    assert code == 1
    assert told in said
    assert SECRET not in said
    rows = [line for line in said.splitlines() if line.startswith(("get", "add"))]
    assert [row.split()[0] for row in rows if row.endswith("wrong")] == [operation]


def test_nobody_there_is_one_plain_table():
    code, said = check(f"http://127.0.0.1:{free_port()}")

    assert code == 1
    assert "EVENT_SERVICE_UPSTREAM_URL" in said
    assert said.count("wrong") == 2  # without users there is nothing more to ask for


def test_an_id_that_no_path_could_hold_is_refused(upstream):
    assert check(upstream, "--user", "a/b") == (
        2,
        "--user: 'a/b' is no id that a path could hold\n",
    )


def test_a_database_has_no_api_to_check():
    code, said = check("sqlite:///nowhere.db")

    assert (code, "database" in said) == (2, True)
