import asyncio
import os
import signal
import threading
from collections.abc import Iterator

import pytest

from event_service.libs.shutdown_notice import shutdown_notice

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    found = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in found.items():
        signal.signal(number, handler)


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request) -> tuple[str, dict[str, bool]]:
    return ("asyncio", {"use_uvloop": request.param})


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_signal_is_told_and_still_reaches_the_loops_own_handler(number: signal.Signals):
    told, handled = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(number, handled.set)
    try:
        with shutdown_notice(told.set):
            os.kill(os.getpid(), number)
            async with asyncio.timeout(5):
                await told.wait()
                await handled.wait()
    finally:
        loop.remove_signal_handler(number)


async def test_a_plain_handler_is_called_too_and_is_back_after_the_block():
    told, seen = asyncio.Event(), []

    def plain(number: int, _frame: object) -> None:
        seen.append(number)

    signal.signal(signal.SIGTERM, plain)
    with shutdown_notice(told.set):
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(5):
            await told.wait()

    assert seen == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is plain


async def test_a_signal_that_nobody_handles_keeps_its_default():
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with shutdown_notice(lambda: None):
        inside = signal.getsignal(signal.SIGTERM)

    assert inside is signal.SIG_DFL


async def test_outside_the_main_thread_signals_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    inside: list[object] = []

    async def in_a_thread() -> None:
        with shutdown_notice(lambda: None):
            inside.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=lambda: asyncio.run(in_a_thread()))
    thread.start()
    await asyncio.to_thread(thread.join)

    assert inside == [before]
