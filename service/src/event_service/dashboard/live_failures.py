"""The latest failed requests, and refusals grouped into runs, for the dashboard."""

from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import NamedTuple

from event_service.dashboard.live_frame import OUTCOMES, FailedRequest, Refusals
from event_service.errors import (
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    UpstreamError,
    UpstreamTimeout,
)
from event_service.signals import RequestDone
from halfopen import CircuitOpen

FAILURES_KEPT = 40
RUNS_KEPT = 40
# Seconds. A refusal belongs to the same run if it comes within this time after the previous one.
RUN_ENDS = 10.0
OK, REFUSED, TIMEOUT, LIMITED, FAILED, CLIENT = range(len(OUTCOMES))
_LONGEST_TEXT = 200


class _Failure(NamedTuple):
    number: int
    at: float
    outcome: int
    record: tuple[str, str, int, float, str, str]
    cause: str


@dataclass(slots=True)
class _Run:
    outcome: int
    method: str
    route: str
    status: int
    cause: str
    began: float
    last: float = 0.0
    count: int = 0
    request_id: str = ""


class LiveFailures:
    """Remembers the latest failures one by one, and counts refusals.

    An open circuit causes thousands of refusals; they must not push out the failures.
    """

    def __init__(self) -> None:
        self.failed = 0
        self._failures: deque[_Failure] = deque(maxlen=FAILURES_KEPT)
        self._runs: dict[tuple[int, str, str, str], _Run] = {}

    def keep(self, record: RequestDone, outcome: int, now: float) -> None:
        # Keep only texts: an error would keep its traceback, and with that the request, alive.
        if outcome in {REFUSED, LIMITED}:
            self._count_refusal(record, outcome, now)
            return
        self.failed += 1
        self._failures.append(
            _Failure(
                self.failed,
                now,
                outcome,
                (
                    record.method[:_LONGEST_TEXT],
                    record.path[:_LONGEST_TEXT],
                    record.status,
                    record.duration,
                    record.request_id,
                    record.trace_id,
                ),
                _cause(record.error),
            )
        )

    def failures(self, epoch: float) -> list[FailedRequest]:
        """The latest failures, oldest first. `epoch`: the Unix time at which the clock was 0."""
        return [_failed_request(failure, epoch) for failure in self._failures]

    def refusals(self, epoch: float) -> list[Refusals]:
        """The latest runs, ordered by their beginning."""
        return [
            Refusals(
                began=round(epoch + run.began, 3),
                last=round(epoch + run.last, 3),
                count=run.count,
                outcome=OUTCOMES[run.outcome],
                method=run.method,
                route=run.route,
                status=run.status,
                cause=run.cause,
                request_id=run.request_id,
            )
            for run in self._runs.values()
        ]

    def _count_refusal(self, record: RequestDone, outcome: int, now: float) -> None:
        method, cause = record.method[:_LONGEST_TEXT], _cause(record.error)
        key = (outcome, method, record.route, cause)
        run = self._runs.get(key)
        if run is None or now - run.last > RUN_ENDS:
            self._runs.pop(key, None)
            while len(self._runs) >= RUNS_KEPT:
                self._runs.pop(next(iter(self._runs)))
            run = _Run(outcome, method, record.route, record.status, cause, began=now)
            self._runs[key] = run
        run.last = now
        run.count += 1
        run.request_id = record.request_id


def outcome_of(record: RequestDone) -> int:
    match record.error:
        case CircuitOpen():
            return REFUSED
        case UpstreamTimeout() | DeadlineExceeded():
            return TIMEOUT
        case RateLimited() | Overloaded():
            return LIMITED
        case _:
            return FAILED if record.status >= HTTPStatus.INTERNAL_SERVER_ERROR else CLIENT


def _cause(error: Exception | None) -> str:
    match error:
        case None:
            return ""
        case UpstreamError():
            return f"{error.operation}: {error.reason}"[:_LONGEST_TEXT]
        case CircuitOpen():
            return f"{error.name} is {error.state.replace('_', '-')}"
        case RateLimited():
            return "over the client's rate"
        case Overloaded():
            return "too many in flight"
        case _:
            return type(error).__name__


def _failed_request(failure: _Failure, epoch: float) -> FailedRequest:
    method, path, status, duration, request_id, trace_id = failure.record
    return FailedRequest(
        number=failure.number,
        at=round(epoch + failure.at, 3),
        outcome=OUTCOMES[failure.outcome],
        method=method,
        path=path,
        status=status,
        duration=round(duration, 5),
        request_id=request_id,
        trace_id=trace_id,
        cause=failure.cause,
    )
