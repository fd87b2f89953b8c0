import asyncio
import re
from typing import Any

import pytest

from event_service.dashboard.changes import Edition
from event_service.dashboard.stream import DashboardStream
from event_service.errors import Overloaded

pytestmark = pytest.mark.anyio


class Watcher:
    """A client of the stream whose reading and leaving the test decides."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.reading = asyncio.Event()
        self.reading.set()
        self.gone = asyncio.Event()
        self.news = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        await self.reading.wait()
        self.sent.append(message)
        self.news.set()

    @property
    def numbers(self) -> list[int]:
        body = b"".join(message.get("body", b"") for message in self.sent)
        return [int(number) for number in re.findall(rb"id: (\d+)\n", body)]

    @property
    def events(self) -> list[bytes]:
        return [message["body"].strip() for message in self.sent if message.get("body")][1:]

    async def until_seen(self, number: int) -> None:
        async with asyncio.timeout(5):
            while number not in self.numbers:
                self.news.clear()
                await self.news.wait()


class Frames:
    """A newest frame that is its own number."""

    def __init__(self) -> None:
        self.number = 1

    def __call__(self) -> Edition:
        known = range(max(2, self.number - 2), self.number + 1)
        changes = tuple((number, b"+1") for number in known)
        return Edition(self.number, b"%d is the number" % self.number, changes)


def stream_of(frames: Frames, **settings: Any) -> DashboardStream:
    # The next second is always a hundredth away.
    return DashboardStream(frames, clock=lambda: 0.99, **settings)


def watch(stream: DashboardStream, watcher: Watcher) -> asyncio.Task[None]:
    return asyncio.create_task(
        stream({"type": "http", "method": "GET"}, watcher.receive, watcher.send)
    )


async def test_each_frame_is_sent_once_and_the_next_when_there_is_one():
    frames, watcher = Frames(), Watcher()
    watching = watch(stream_of(frames), watcher)
    await watcher.until_seen(1)
    await asyncio.sleep(0.03)
    frames.number = 2
    await watcher.until_seen(2)
    watcher.gone.set()
    await watching

    assert watcher.numbers == [1, 2]


async def test_who_has_the_frame_before_gets_what_changed_and_who_has_not_gets_it_whole():
    frames, early, late = Frames(), Watcher(), Watcher()
    stream = stream_of(frames)
    watching = [watch(stream, early)]
    await early.until_seen(1)
    frames.number = 2
    watching.append(watch(stream, late))
    await early.until_seen(2)
    await late.until_seen(2)
    early.reading.clear()
    frames.number = 3
    await asyncio.sleep(0.03)
    frames.number = 5
    early.reading.set()
    await early.until_seen(5)
    early.reading.clear()
    frames.number = 6
    await asyncio.sleep(0.03)
    frames.number = 10
    early.reading.set()
    await early.until_seen(10)
    for watcher in (early, late):
        watcher.gone.set()
    await asyncio.gather(*watching)

    told = [re.sub(rb"id: |event: |data: | is the number", b"", each) for each in early.events]
    assert told[:2] == [b"1\n1", b"2\nchange\n+1"]
    assert told[2:] in (
        [b"3\nchange\n+1", b"4\nchange\n+1\n\n5\nchange\n+1", b"6\nchange\n+1", b"10\n10"],
        [b"3\nchange\n+1\n\n4\nchange\n+1\n\n5\nchange\n+1", b"10\n10"],
    )
    assert late.events[0].endswith(b"data: 2 is the number")


async def test_a_watcher_that_does_not_read_misses_frames_and_then_gets_the_newest():
    frames, watcher = Frames(), Watcher()
    watching = watch(stream_of(frames), watcher)
    await watcher.until_seen(1)
    watcher.reading.clear()
    for number in range(2, 10):
        frames.number = number
        await asyncio.sleep(0.015)
    watcher.reading.set()
    await watcher.until_seen(9)
    watcher.gone.set()
    await watching

    assert len(watcher.numbers) <= 3
    assert watcher.numbers[-1] == 9


async def test_a_watcher_that_reads_nothing_for_too_long_is_cut_off():
    frames, watcher = Frames(), Watcher()
    stream = stream_of(frames, slowest=0.05)
    watching = watch(stream, watcher)
    await watcher.until_seen(1)
    watcher.reading.clear()
    frames.number = 2
    async with asyncio.timeout(5):
        await watching

    assert stream.watchers == 0
    assert watcher.numbers == [1]


async def test_closing_ends_every_watcher_even_one_that_does_not_read():
    stream, watchers = stream_of(Frames()), [Watcher(), Watcher()]
    watching = [watch(stream, watcher) for watcher in watchers]
    for watcher in watchers:
        await watcher.until_seen(1)
    watchers[1].reading.clear()
    stream.close()
    async with asyncio.timeout(5):
        await asyncio.gather(*watching)

    assert stream.watchers == 0
    assert watchers[0].sent[-1] == {"type": "http.response.body", "body": b""}


async def test_a_closed_stream_takes_no_watcher():
    stream = stream_of(Frames())
    stream.close()

    with pytest.raises(Overloaded):
        await watch(stream, Watcher())


async def test_a_watcher_that_leaves_makes_room():
    stream, watcher = stream_of(Frames(), max_watchers=1), Watcher()
    watching = watch(stream, watcher)
    await watcher.until_seen(1)
    with pytest.raises(Overloaded):
        await watch(stream, Watcher())
    watcher.gone.set()
    await watching

    assert stream.watchers == 0


async def test_an_error_in_making_a_frame_is_not_hidden():
    def broken() -> Edition:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await watch(DashboardStream(broken), Watcher())
