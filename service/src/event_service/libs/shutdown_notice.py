import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def shutdown_notice(tell: Callable[[], None]) -> Iterator[None]:
    """Within the block, `tell` is called on the event loop when SIGTERM or SIGINT arrives.

    For what would hold up a graceful stop, such as a response without end: a server lets
    requests finish before it ends the application's lifespan, so that would be told too late.
    Whoever handles the signal still does: an event loop hears of signals beside their plain
    handlers, and the handler found here is called after ours. A signal that nobody handles is
    left alone, and so is everything outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    found = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def notice(number: int, frame: FrameType | None) -> None:
        loop.call_soon_threadsafe(tell)
        handler = found[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    handled = [number for number, handler in found.items() if callable(handler)]
    for number in handled:
        signal.signal(number, notice)
    try:
        yield
    finally:
        for number in handled:
            if signal.getsignal(number) is notice:
                signal.signal(number, found[number])
