import asyncio

import pytest

from event_service.libs.group_commit import GroupCommit

pytestmark = pytest.mark.anyio


class Disk:
    """A commit that takes until it is told to end."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.refused: set[int] = set()
        self.error: Exception | None = None

    async def commit(self, items):
        self.batches.append(list(items))
        self.begun.set()
        await self.may_end.wait()
        if self.error is not None:
            raise self.error
        return [ValueError(item) if item in self.refused else item * 10 for item in items]


async def test_a_lone_item_is_committed_at_once():
    disk = Disk()
    disk.may_end.set()
    assert await GroupCommit(disk.commit).submit(1) == 10
    assert disk.batches == [[1]]


async def test_what_arrives_during_a_commit_goes_into_the_next_one_in_order():
    disk = Disk()
    group = GroupCommit(disk.commit)
    first = asyncio.create_task(group.submit(1))
    await disk.begun.wait()
    others = [asyncio.create_task(group.submit(n)) for n in range(2, 100)]
    await asyncio.sleep(0)
    disk.may_end.set()
    assert await asyncio.gather(first, *others) == [n * 10 for n in range(1, 100)]
    assert disk.batches == [[1], list(range(2, 100))]


async def test_a_batch_has_a_bound():
    disk = Disk()
    disk.may_end.set()
    group = GroupCommit(disk.commit, max_batch=4)
    await asyncio.gather(*(group.submit(n) for n in range(10)))
    assert disk.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


async def test_as_many_commits_as_are_allowed_go_on_at_once():
    disk = Disk()
    group = GroupCommit(disk.commit, at_once=2)
    callers = [asyncio.create_task(group.submit(n)) for n in range(3)]
    await disk.begun.wait()
    callers += [asyncio.create_task(group.submit(n)) for n in range(3, 6)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert disk.batches == [[0, 1, 2], [3, 4, 5]]
    callers.append(asyncio.create_task(group.submit(6)))
    await asyncio.sleep(0)
    assert len(disk.batches) == 2
    disk.may_end.set()
    assert await asyncio.gather(*callers) == [n * 10 for n in range(7)]
    await group.drain()
    assert await group.submit(7) == 70


async def test_an_error_of_one_item_is_its_callers_alone():
    disk = Disk()
    disk.may_end.set()
    disk.refused = {2}
    group = GroupCommit(disk.commit)
    results = await asyncio.gather(*(group.submit(n) for n in (1, 2, 3)), return_exceptions=True)
    assert [results[0], results[2]] == [10, 30]
    assert isinstance(results[1], ValueError)


async def test_a_failed_commit_fails_its_whole_batch_and_no_other():
    disk = Disk()
    group = GroupCommit(disk.commit)
    disk.error = OSError("disk")
    first = asyncio.create_task(group.submit(1))
    await disk.begun.wait()
    disk.may_end.set()
    with pytest.raises(OSError, match="disk"):
        await first
    disk.error = None
    assert await group.submit(2) == 20


async def test_a_caller_that_leaves_before_its_batch_takes_its_item_along():
    disk = Disk()
    group = GroupCommit(disk.commit)
    first = asyncio.create_task(group.submit(1))
    await disk.begun.wait()
    leaver, stayer = (asyncio.create_task(group.submit(n)) for n in (2, 3))
    await asyncio.sleep(0)
    leaver.cancel()
    disk.may_end.set()
    assert [await first, await stayer] == [10, 30]
    assert disk.batches == [[1], [3]]


async def test_a_caller_that_leaves_during_the_commit_harms_nobody():
    disk = Disk()
    group = GroupCommit(disk.commit)
    leaver, stayer = (asyncio.create_task(group.submit(n)) for n in (1, 2))
    await disk.begun.wait()
    leaver.cancel()
    await asyncio.sleep(0)
    disk.may_end.set()
    assert await stayer == 20
    await group.drain()
    assert disk.batches == [[1, 2]]
