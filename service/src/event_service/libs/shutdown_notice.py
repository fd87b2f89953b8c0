from collections.abc import Callable


class ShutdownNotice:
    """Tells the parts of one process that it is about to end, on its event loop.

    Before it ends, a process answers the requests it has. A part that would delay that, such as an
    endless reply, listens with `on_leaving`. `in_flight` is kept by the code that takes requests
    in.
    """

    def __init__(self) -> None:
        self.leaving = False
        """The process stops taking requests: each reply closes its connection."""
        self.stopping = False
        """The whole service stops and must get no more traffic; implies `leaving`."""
        self.in_flight = 0
        self._listeners: list[Callable[[], None]] = []

    def on_leaving(self, listener: Callable[[], None]) -> None:
        """Call `listener` once when this process is leaving; now, if it already is."""
        if self.leaving:
            listener()
        else:
            self._listeners.append(listener)

    def leave(self) -> None:
        """Another process takes over from this one. Calling it again does nothing."""
        self.leaving = True
        listeners, self._listeners = self._listeners, []
        for listener in listeners:
            listener()

    def stop(self) -> None:
        """The whole service stops. Calling it again does nothing."""
        self.stopping = True
        self.leave()
