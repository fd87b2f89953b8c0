from event_service.telemetry.cells import Cells, Pages
from event_service.telemetry.circuits import circuits
from halfopen import State


def worker(pages: Pages, place: int, **states: State) -> Cells:
    cells = Cells(pages, place)
    for name, current in states.items():
        for state in State:
            cells.values[cells.claim("circuit_breaker_state", (name, state.value))] = (
                state is current
            )
    return cells


def test_a_circuit_is_as_bad_as_in_the_worst_of_the_workers():
    pages = Pages(4, lasting=lambda _metric: False)
    here = worker(pages, 0, addEvent=State.CLOSED, getUsers=State.CLOSED)
    worker(pages, 1, addEvent=State.OPEN, getUsers=State.CLOSED)

    add_event, get_users = circuits(here)

    assert (add_event.worst, add_event.where) == (State.OPEN, "in 1 of 2 workers")
    assert (get_users.worst, get_users.where) == (State.CLOSED, "in 2 of 2 workers")


def test_a_worker_that_has_ended_says_nothing():
    pages = Pages(4, lasting=lambda _metric: False)
    here = worker(pages, 0, addEvent=State.CLOSED)
    worker(pages, 1, addEvent=State.OPEN)

    pages.fold(1)

    assert [(each.worst, each.where) for each in circuits(here)] == [(State.CLOSED, "")]
