"""Power cuts and failing disks for the outbox's SQLite store."""

import random
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import apsw

from event_service.outbox.records import Accepted, NewDelivery, Outcome, State, Step, Then
from event_service.outbox.sqlite_store import SqliteStore
from event_service.outbox.store import StoreFailed
from torture.fault_vfs import Disk, FaultVFS, Image, Operation, failing, restore

BATCH = 3
# Commits after which a store is closed and opened again, which empties its log.
COMMITS_AT_A_TIME = 40
# Batches in a run with a disk that fails once.
ROUNDS = 8
# How each kind of call may fail.
FAILURES: tuple[tuple[str, Operation], ...] = (
    ("EIO", "sync"),
    ("EIO", "write"),
    ("ENOSPC", "write"),
)
_numbers = count()


class Lost(AssertionError):
    """Acknowledged data is lost, or the store did not recover."""


class Rig:
    """A store on a disk that can lose power and fail, and the events it has acknowledged."""

    def __init__(self, folder: Path) -> None:
        name = f"fault-{next(_numbers)}"
        self.disk = Disk()
        self._vfs = FaultVFS(name, self.disk)
        self._options = {"limit": 10**9, "give_up": 1e6, "vfs": name}
        self._path = folder / "outbox.db"
        self._entries = count()
        self.store = self._new_store()
        self.accepted: set[str] = set()
        self.delivered: set[str] = set()
        self.refused = 0

    def _new_store(self) -> SqliteStore:
        # The promises must hold with any lease and any clock; no time passes here.
        return SqliteStore(self._path, **self._options, clock=lambda: 1_000.0)  # type: ignore[arg-type]

    async def reopen(self) -> None:
        await self.store.close()
        self.store = self._new_store()
        await self.store.open()

    async def accept(self) -> None:
        try:
            results = await self.store.accept([_entry(next(self._entries)) for _ in range(BATCH)])
        except StoreFailed:
            self.refused += 1
        else:
            self.accepted |= {each.id for each in results if isinstance(each, Accepted)}

    async def deliver(self) -> None:
        """Deliver the first event of a few lanes."""
        try:
            claims = await self.store.claim("rig", 2)
            steps = [
                Step(
                    each.user_id,
                    each.token,
                    each.seen,
                    Then.REST,
                    Outcome(each.queued[0].seq, State.DELIVERED, event_id="x"),
                )
                for each in claims
                if each.queued
            ]
            await self.store.advance(steps)
        except StoreFailed:
            self.refused += 1
        else:
            self.delivered |= {each.queued[0].id for each in claims if each.queued}

    def check_cut(self, chance: random.Random) -> None:
        """Cut the power now in three ways, and check the files after each."""
        for keep in ("nothing", "all", "some"):
            check(self.disk.cut(chance, keep=keep), self.accepted, self.delivered)


def check(image: Image, accepted: set[str], delivered: set[str]) -> None:
    """Raise Lost if an acknowledged event is missing after a power cut."""
    with tempfile.TemporaryDirectory() as folder:
        restore(image, Path(folder))
        connection = apsw.Connection(str(Path(folder) / "outbox.db"))
        try:
            connection.pragma("synchronous", "OFF")  # no power cut during this check
            sound = connection.execute("PRAGMA quick_check(1)").get
            if sound != "ok":
                raise Lost(f"damaged: {sound}")
            if not accepted:
                return
            rows: list[Any] = connection.execute("SELECT id, state FROM outbox").fetchall()
            found: dict[str, str] = dict(rows)
        except apsw.Error as error:
            raise Lost(f"unreadable: {error}") from error
        finally:
            connection.close()
    lost = sorted(accepted - found.keys())
    undone = sorted(each for each in delivered if found.get(each) != State.DELIVERED)
    if lost or undone:
        raise Lost(f"accepted and lost: {lost[:5]}; delivered and undone: {undone[:5]}")


async def power_cuts(commits: int, seed: int, folder: Path) -> int:
    """Cut the power at every sync of `commits` commits. Returns the number of cuts."""
    chance = random.Random(seed)
    rig = Rig(folder)
    cuts = 0

    def before(operation: Operation, _path: Path) -> None:
        nonlocal cuts
        if operation == "sync":
            cuts += 1
            rig.check_cut(chance)

    await rig.store.open()
    rig.disk.before = before
    for number in range(commits):
        await (rig.deliver() if chance.random() < 0.3 else rig.accept())
        if number % COMMITS_AT_A_TIME == COMMITS_AT_A_TIME - 1:
            await rig.reopen()
    await rig.store.close()
    rig.check_cut(chance)
    if rig.refused:
        raise Lost("a healthy disk was refused")
    return cuts


async def failing_disk(
    errno: str, operation: Operation, seed: int, *, length: int = 1, most: int | None = None
) -> int:
    """Let each call of an operation fail in turn, with the next `length` - 1. Returns the runs.

    Afterwards the disk works. All acknowledged events must survive a power cut at every later sync,
    and the store must accept events again. `most` limits the runs to so many random calls.
    """
    chance = random.Random(seed)
    numbers: Iterator[int] = count(1)
    if most is not None:
        total = await _run(errno, operation, 10**9, length, chance)
        numbers = iter(sorted(chance.sample(range(1, total + 1), min(most, total))))
    runs = 0
    for number in numbers:
        if await _run(errno, operation, number, length, chance) < number:
            break
        runs += 1
    return runs


async def _run(
    errno: str, operation: Operation, number: int, length: int, chance: random.Random
) -> int:
    """One run in which call `number` fails. Returns the number of calls."""
    calls = 0
    with _folder() as folder:
        rig = Rig(folder)

        def before(each: Operation, _path: Path) -> None:
            nonlocal calls
            if each == operation:
                calls += 1
                if number <= calls < number + length:
                    raise failing(errno, operation)
            if each == "sync" and calls >= number:
                rig.check_cut(chance)

        await rig.store.open()
        rig.disk.before = before
        for round_ in range(ROUNDS):
            await rig.accept()
            if round_ % 3 == 2:
                await rig.deliver()
        rig.disk.before = lambda _operation, _path: None
        before_it = len(rig.accepted)
        for _ in range(2):
            await rig.accept()
        if len(rig.accepted) == before_it:
            raise Lost(f"{errno} at {operation} {number}: the store did not come back")
        rig.check_cut(chance)
        await rig.store.close()
        rig.check_cut(chance)
    return calls


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def _entry(number: int) -> NewDelivery:
    return NewDelivery(
        id=f"event-{number:06}",
        idem_key=None,
        fingerprint=b"",
        client="",
        user_id=str(number % 7),
        body=b"t" * (number * 37 % 1500),
        upstream_key="",
        request_id="",
        traceparent="",
    )
