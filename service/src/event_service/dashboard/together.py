"""Merges the figures of all workers of a server."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from itertools import chain
from typing import Protocol, TypeVar

import msgspec
from msgspec.structs import replace

from event_service.dashboard.changes import Edition, Editions
from event_service.dashboard.live_failures import RUN_ENDS
from event_service.dashboard.live_frame import (
    Breaker,
    Cluster,
    Endpoint,
    FailedRequest,
    Frame,
    Latency,
    Operation,
    Outbox,
    Refusals,
    Service,
    Transition,
    Upstream,
)
from event_service.libs.board import Board

SIZE = 512 * 1024  # bytes: limit for one worker's frame
EVERY = 1.0  # seconds
# Seconds. An older frame belongs to a worker that hangs or has ended.
STALE = 3.5
KEPT = 60
_WORST_FIRST = ("isolated", "open", "half_open", "closed")

T = TypeVar("T", Transition, FailedRequest)
_decode = msgspec.json.Decoder(Frame).decode
_encode = msgspec.json.Encoder().encode


class Feed(Protocol):
    """The figures of this worker."""

    def frame(self) -> tuple[int, bytes]: ...
    def read(self) -> Frame: ...


class AllWorkers:
    """One frame for this worker and all others that post theirs to the board."""

    def __init__(
        self,
        feed: Feed,
        board: Board | None,
        *,
        place: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`board` is None with one worker."""
        self._feed = feed
        self._board = board
        self._place = place
        self._sleep = sleep
        self._number = 0
        self._encoded = b""
        self._editions = Editions()

    async def publish(self) -> None:
        """Post this worker's figures to the board, forever. Returns at once without a board."""
        while self._board is not None:
            _, text = self._feed.frame()
            self._board.put(self._place, text)
            await self._sleep(EVERY)

    def newest(self) -> Edition:
        """The newest frame, which is updated at most once a second."""
        return self._editions.of(*self._frame())

    def _frame(self) -> tuple[int, bytes]:
        number, text = self._feed.frame()
        if self._board is None:
            return number, text
        if number != self._number:
            self._number = number
            own = self._feed.read()
            others = [
                _decode(post.text)
                for post in self._board.read()
                if post.place != self._place and post.age < STALE
            ]
            self._encoded = _encode(merged(own, others))
        return number, self._encoded


def merged(own: Frame, others: Sequence[Frame]) -> Frame:
    """One frame for several workers: the sum of counts and rates, the worst of percentiles."""
    frames = [own, *others]
    return replace(
        own,
        workers=max(own.workers, len(frames)),
        started=min(frame.started for frame in frames),
        rate=round(sum(frame.rate for frame in frames), 1),
        breakers=[
            _breaker(breaker.name, [_named(frame.breakers, breaker.name) for frame in frames])
            for breaker in own.breakers
        ],
        endpoints=_endpoints(frames),
        upstream=_upstream([frame.upstream for frame in frames]),
        transitions=_newest((frame, frame.transitions) for frame in frames),
        failures=_newest((frame, frame.failures) for frame in frames),
        failed=sum(frame.failed for frame in frames),
        refusals=_refusals(chain.from_iterable(frame.refusals for frame in frames)),
        service=_service(frames),
        outbox=_outbox([frame.outbox for frame in frames if frame.outbox is not None]),
        cluster=_cluster([frame.cluster for frame in frames if frame.cluster is not None]),
    )


def _named(breakers: Iterable[Breaker], name: str) -> Breaker | None:
    return next((breaker for breaker in breakers if breaker.name == name), None)


def _breaker(name: str, found: Sequence[Breaker | None]) -> Breaker:
    """The worst of them, with the number of workers in each state."""
    breakers = [breaker for breaker in found if breaker is not None]
    worst = min(breakers, key=lambda each: (_WORST_FIRST.index(each.state), each.since))
    states = {
        state: sum(each.state == state for each in breakers)
        for state in _WORST_FIRST
        if any(each.state == state for each in breakers)
    }
    return replace(
        worst,
        name=name,
        workers=states,
        failed_at=sorted(chain.from_iterable(each.failed_at for each in breakers))[-KEPT:],
        probes=sum(each.probes for each in breakers),
        rejected=sum(each.rejected for each in breakers),
        opened=sum(each.opened for each in breakers),
    )


def _endpoints(frames: Sequence[Frame]) -> list[Endpoint]:
    by_route: dict[tuple[str, str], list[Endpoint]] = {}
    for frame in frames:
        for endpoint in frame.endpoints:
            by_route.setdefault((endpoint.method, endpoint.route), []).append(endpoint)
    return [
        Endpoint(
            method=method,
            route=route,
            requests=_sums([each.requests for each in found]),
            errors=_sums([each.errors for each in found]),
            long_requests=_sums([each.long_requests for each in found]),
            long_errors=_sums([each.long_errors for each in found]),
            counts={
                outcome: sum(each.counts.get(outcome, 0) for each in found)
                for outcome in found[0].counts
            },
            rate=sum(each.rate for each in found),
            error_share=_share([(each.rate, each.error_share) for each in found]),
            latency=_latency([each.latency for each in found]),
            refused=sum(each.refused for each in found),
        )
        for (method, route), found in by_route.items()
    ]


def _upstream(found: Sequence[Upstream]) -> Upstream:
    operations: dict[str, list[Operation]] = {}
    for upstream in found:
        for operation in upstream.operations:
            operations.setdefault(operation.name, []).append(operation)
    return Upstream(
        in_flight=sum(each.in_flight for each in found),
        limit=sum(each.limit for each in found),
        waiting=sum(each.waiting for each in found),
        retries_left=round(sum(each.retries_left for each in found), 1),
        retries=sum(each.retries for each in found),
        gave_up=sum(each.gave_up for each in found),
        shared=sum(each.shared for each in found),
        cache_hits=sum(each.cache_hits for each in found),
        operations=[_operation(name, each) for name, each in operations.items()],
    )


def _operation(name: str, found: Sequence[Operation]) -> Operation:
    return Operation(
        name=name,
        p50=_worst_by_time([each.p50 for each in found]),
        p95=_worst_by_time([each.p95 for each in found]),
        long_p50=_worst_by_time([each.long_p50 for each in found]),
        long_p95=_worst_by_time([each.long_p95 for each in found]),
        rate=sum(each.rate for each in found),
        error_share=_share([(each.rate, each.error_share) for each in found]),
        latency=_latency([each.latency for each in found]),
        normal=_worst(each.normal for each in found),
    )


def _service(frames: Sequence[Frame]) -> Service:
    found = [frame.service for frame in frames]
    return Service(
        in_flight=sum(each.in_flight for each in found),
        max_in_flight=sum(each.max_in_flight for each in found),
        shed=sum(each.shed for each in found),
        limited=sum(each.limited for each in found),
        error_share=_share([(frame.rate, frame.service.error_share) for frame in frames]),
        latency=_latency([each.latency for each in found]),
        cpu=sum(each.cpu for each in found),
        memory=sum(each.memory for each in found),
        loop_lag=max(each.loop_lag for each in found),
        steady_lag=max(each.steady_lag for each in found),
    )


def _outbox(found: Sequence[Outbox]) -> Outbox | None:
    """Each worker reports the whole outbox; some reports may be slightly older than others."""
    if not found:
        return None
    return Outbox(max(each.pending for each in found), max(each.oldest for each in found))


def _cluster(found: Sequence[Cluster]) -> Cluster | None:
    if not found:
        return None
    return Cluster(all(each.joined for each in found), max(each.nodes for each in found))


def _refusals(found: Iterable[Refusals]) -> list[Refusals]:
    """Merge simultaneous runs of the same refusals in several workers."""
    together: list[Refusals] = []
    for run in sorted(found, key=lambda each: each.began):
        for index, other in enumerate(together):
            if _kind(other) == _kind(run) and run.began <= other.last + RUN_ENDS:
                newest = max(other, run, key=lambda each: each.last)
                together[index] = replace(
                    newest,
                    began=min(other.began, run.began),
                    count=other.count + run.count,
                )
                break
        else:
            together.append(run)
    return together


def _kind(run: Refusals) -> tuple[str, str, str, str]:
    return run.outcome, run.method, run.route, run.cause


def _newest(found: Iterable[tuple[Frame, Sequence[T]]]) -> list[T]:
    """The newest entries of all workers, oldest first, each with its worker."""
    together = [
        replace(each, worker=frame.worker, worker_number=frame.worker_number)
        for frame, listed in found
        for each in listed
    ]
    together.sort(key=lambda each: each.at)
    return together[-KEPT:]


def _sums(rows: Sequence[Sequence[int]]) -> list[int]:
    longest = max(map(len, rows))
    filled = [[0] * (longest - len(row)) + list(row) for row in rows]
    return [sum(column) for column in zip(*filled, strict=True)]


def _worst_by_time(rows: Sequence[Sequence[float | None]]) -> list[float | None]:
    longest = max(map(len, rows))
    nothing: list[float | None] = [None]
    filled = [nothing * (longest - len(row)) + list(row) for row in rows]
    return [_worst(column) for column in zip(*filled, strict=True)]


def _worst(values: Iterable[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _share(found: Sequence[tuple[float, float | None]]) -> float | None:
    rated = [(rate, share) for rate, share in found if share is not None]
    calls = sum(rate for rate, _ in rated)
    return sum(rate * share for rate, share in rated) / calls if calls else None


def _latency(found: Sequence[Latency]) -> Latency:
    return Latency(
        _worst(each.p50 for each in found),
        _worst(each.p95 for each in found),
        _worst(each.p99 for each in found),
    )
