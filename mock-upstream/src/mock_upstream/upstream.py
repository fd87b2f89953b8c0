from __future__ import annotations

from mock_upstream.add_event import AddEvent
from mock_upstream.cycle import Cycle
from mock_upstream.data import DataSet, GeneratedData, SampleData
from mock_upstream.dialects import DIALECTS, DialectName
from mock_upstream.faults import Faults
from mock_upstream.journal import Journal
from mock_upstream.store import Store

OPERATIONS = ("getUsers", "getUserById", "getEvents", "getEventById", "addEvent")


class MockUpstream:
    """The upstream's whole state, all of it open to tests in the same process.

    `event_delay` is in seconds. It begins with `data`, or with so many generated `users` with
    `events_per_user` events each, or else with three sample users. `outage`: refusals end so many
    seconds after the first one; None: only their number ends them. `url` is empty until it is
    served.
    """

    def __init__(
        self,
        *,
        data: DataSet | None = None,
        event_delay: float = 0.5,
        users: int | None = None,
        events_per_user: int = 10,
        accept: int = 5,
        refuse: int = 10,
        outage: float | None = None,
        seed: int = 0,
        dialect: DialectName = "plain",
    ) -> None:
        if data is None:
            data = SampleData() if users is None else GeneratedData(users, events_per_user, seed)
        self.url = ""
        self.event_delay = event_delay
        self.store = Store(data)
        self.dialect_name = dialect
        self.dialect = DIALECTS[dialect]
        self.add_event = AddEvent(
            self.store, Cycle(accept, refuse, outage), own_ids=self.dialect.own_ids
        )
        self.faults = Faults(OPERATIONS, seed)
        self.journal = Journal(OPERATIONS)
        self._started_with = event_delay

    def reset(self) -> None:
        """Back to how it started; calls in flight stay as they are."""
        self.event_delay = self._started_with
        self.store.clear()
        self.add_event.reset()
        self.faults.clear_all()
        self.journal.clear()
