"""A short form of what `make torture` does for as long as one likes."""

import pytest
from torture import crashes, outage, pause
from torture.power import FAILURES, failing_disk, power_cuts

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


async def test_a_power_cut_at_any_sync_loses_nothing_that_was_acknowledged(tmp_path, times):
    cuts = times(15, 50)
    assert await power_cuts(cuts, 1, tmp_path) >= cuts


@pytest.mark.parametrize(("errno", "operation"), FAILURES)
async def test_a_disk_that_fails_makes_no_false_promise_and_loses_nothing(errno, operation):
    assert await failing_disk(errno, operation, 1, most=5) == 5


async def test_a_disk_that_fails_for_a_while_is_used_again_afterwards():
    assert await failing_disk("EIO", "sync", 2, length=6, most=3) == 3


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs("initdb"))])
def outbox_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/outbox.db"
    return request.getfixturevalue("postgres_url")


async def test_kill_9_at_any_point_loses_nothing_and_repeats_nothing(outbox_url):
    told = await crashes.crashes(outbox_url, times=1)
    assert (told.crashes, told.acknowledged) == (6, 18)


async def test_a_worker_that_is_paused_beyond_its_lease_harms_nothing(outbox_url):
    assert await pause.pause(outbox_url, times=1) == 5


async def test_an_outage_costs_few_calls_and_no_order(tmp_path):
    url = f"sqlite:///{tmp_path}/outbox.db"
    told = await outage.outage(url, seconds=2, users=20, events=400)
    assert told.events == 400
