from collections.abc import Callable


class ShutdownNotice:
    """What one process says to its own parts about its end, on its event loop.

    Before a process ends it answers what it has; a part that would hold that up, such as a reply
    without end, listens with `on_leaving`. `in_flight` is kept by whoever takes requests in.
    """

    def __init__(self) -> None:
        self.leaving = False
        """The process takes no more requests than it must: each reply ends its connection."""
        self.stopping = False
        """The whole service ends, and is to get no more traffic; implies `leaving`."""
        self.in_flight = 0
        self._listeners: list[Callable[[], None]] = []

    def on_leaving(self, listener: Callable[[], None]) -> None:
        """`listener` is called once, and at once if that was told before."""
        if self.leaving:
            listener()
        else:
            self._listeners.append(listener)

    def leave(self) -> None:
        """Another process takes the place of this one. Further calls do nothing."""
        self.leaving = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def stop(self) -> None:
        """The service ends. Further calls do nothing."""
        self.stopping = True
        self.leave()
