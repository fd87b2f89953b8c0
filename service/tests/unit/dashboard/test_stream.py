import asyncio
import re
from typing import Any

import pytest

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
        return [int(number) for number in re.findall(rb"data: (\d+)\n\n", body)]

    async def until_seen(self, number: int) -> None:
        async with asyncio.timeout(5):
            while number not in self.numbers:
                self.news.clear()
                await self.news.wait()


class Frames:
    """A newest frame that is its own number."""

    def __init__(self) -> None:
        self.number = 1

    def __call__(self) -> tuple[int, bytes]:
        return self.number, str(self.number).encode()


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
    stream, watcher = stream_of(Frames(), slowest=0.05), Watcher()
    watching = watch(stream, watcher)
    await watcher.until_seen(1)
    watcher.reading.clear()
    stream._frame = lambda: (2, b"2")
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
    def broken() -> tuple[int, bytes]:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        await watch(DashboardStream(broken), Watcher())
