from collections import OrderedDict
from collections.abc import Callable

from limits.storage import Storage


class _Window:
    __slots__ = ("count", "ends")

    def __init__(self, ends: float) -> None:
        self.count = 0
        self.ends = ends


class WindowCounts(Storage):
    """A storage for `limits` that counts in fixed windows, each started by a key's first hit.

    It holds at most `max_windows`: above that, the oldest are forgotten, and their keys start
    again. Ended windows are removed as new ones start. (The library's own memory storage has no
    limit, and a thread that walks all of it a hundred times per second.) Times are those of
    `clock`. Use from one thread.
    """

    STORAGE_SCHEME = None

    def __init__(self, max_windows: int, *, clock: Callable[[], float]) -> None:
        super().__init__()
        self._max_windows = max_windows
        self._clock = clock
        # In order of their start, which is also the order of their end if all have the same length.
        self._windows: OrderedDict[str, _Window] = OrderedDict()

    def __len__(self) -> int:
        return len(self._windows)

    @property
    def base_exceptions(self) -> type[Exception]:
        return KeyError

    def incr(self, key: str, expiry: float, amount: int = 1) -> int:
        now = self._clock()
        window = self._windows.get(key)
        if window is None or window.ends <= now:
            self._windows.pop(key, None)
            self._make_room(now)
            window = self._windows[key] = _Window(now + expiry)
        window.count += amount
        return window.count

    def get(self, key: str) -> int:
        window = self._windows.get(key)
        return 0 if window is None or window.ends <= self._clock() else window.count

    def get_expiry(self, key: str) -> float:
        """When the key's window ends; now if it has none."""
        window = self._windows.get(key)
        return self._clock() if window is None else window.ends

    def check(self) -> bool:
        return True

    def reset(self) -> int:
        number = len(self._windows)
        self._windows.clear()
        return number

    def clear(self, key: str) -> None:
        self._windows.pop(key, None)

    def _make_room(self, now: float) -> None:
        # Remove two for each new one, so that ended windows do not accumulate.
        for _ in range(2):
            oldest = next(iter(self._windows), None)
            if oldest is None:
                return
            full = len(self._windows) >= self._max_windows
            if not full and self._windows[oldest].ends > now:
                return
            del self._windows[oldest]
