import os

import pytest

from event_service.libs.open_files import MOST_CONNECTIONS, RESERVE, open_now, share_out


@pytest.mark.parametrize(
    ("limit", "used", "calls", "connections", "left_for_calls"),
    [
        (1_048_576, 40, 1024, MOST_CONNECTIONS, 1024),
        (1024, 40, 100, 1024 - 40 - RESERVE - 100, 100),
        # Each call answers a connection, so half of what there is does for them.
        (64, 28, 1024, 10, 10),
        # Whatever happens, one of each.
        (16, 28, 1024, 1, 1),
    ],
)
def test_files_are_shared_out(limit, used, calls, connections, left_for_calls):
    assert share_out(limit, used=used, calls=calls) == (connections, left_for_calls)


def test_open_files_are_counted():
    before = open_now()
    found = os.dup(0)
    assert open_now() == before + 1
    os.close(found)
