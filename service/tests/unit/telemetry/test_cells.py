import json
import os

import pytest
import structlog
from structlog.testing import capture_logs

from event_service.telemetry.cells import CELLS, Cells, Pages, Row


def rows(cells: Cells) -> list[Row]:
    return [row for page in cells.pages() for row in page.rows]


def shared(places: int = 4) -> Pages:
    return Pages(places, lasting=lambda metric: metric != "in_flight")


@pytest.fixture
def logs():
    structlog.reset_defaults()
    with capture_logs() as lines:
        yield lines


def test_a_process_alone_reads_what_it_counted():
    cells = Cells()
    first = cells.claim("requests", ("GET", "200"))
    pair = cells.claim("durations", size=2)
    cells.values[first] += 1
    cells.values[pair + 1] += 2.5

    (page,) = cells.pages()
    assert page.pid == os.getpid()
    assert page.alive
    assert page.rows == [
        Row("requests", ("GET", "200"), (1.0,)),
        Row("durations", (), (0.0, 2.5)),
    ]


def test_labels_may_hold_anything():
    cells = Cells()
    cells.claim("requests", ('"\n\u2028\x00é',))
    assert rows(cells) == [Row("requests", ('"\n\u2028\x00é',), (0.0,))]


def test_those_who_share_pages_read_each_other():
    pages = shared()
    one, other = Cells(pages, 0), Cells(pages, 3)
    one.values[one.claim("requests")] += 1
    other.values[other.claim("requests")] += 2

    assert rows(one) == rows(other)
    assert sorted(row.values for row in rows(one)) == [(1.0,), (2.0,)]
    assert [page.alive for page in one.pages()] == [True, True, False]


def test_a_child_process_counts_where_its_parent_reads():
    pages = shared()
    child = os.fork()
    if child == 0:
        cells = Cells(pages, 0)
        cells.values[cells.claim("requests", ("child",))] += 3
        os._exit(0)
    os.waitpid(child, 0)

    page = pages.read()[0]
    assert page.pid == child
    assert page.rows == [Row("requests", ("child",), (3.0,))]


def test_a_processs_counters_outlive_it_but_its_gauges_do_not():
    pages = shared()
    for place in (0, 1, 0):
        cells = Cells(pages, place)
        cells.values[cells.claim("requests", ("GET",))] += 2
        cells.values[cells.claim("in_flight")] += 1
        cells.values[cells.claim("durations", size=2) + 1] += 0.5
        pages.fold(place)

    (page,) = pages.read()
    assert not page.alive
    assert page.rows == [Row("requests", ("GET",), (6.0,)), Row("durations", (), (0.0, 1.5))]


def test_a_place_is_as_new_after_its_process():
    pages = shared()
    cells = Cells(pages, 0)
    cells.values[cells.claim("requests")] += 2
    pages.fold(0)

    again = Cells(pages, 0)
    assert again.values[again.claim("requests")] == 0


def test_two_hundred_processes_one_after_the_other_leave_one_page():
    pages = shared()
    for number in range(200):
        cells = Cells(pages, number % 4)
        cells.values[cells.claim("requests")] += 1
        pages.fold(number % 4)

    (page,) = pages.read()
    assert page.rows == [Row("requests", (), (200.0,))]


def test_nothing_that_a_killed_process_left_half_written_harms_readers():
    pages = shared()
    cells = Cells(pages, 0)
    cells.claim("requests")
    before = rows(cells)
    # A name without its length, and cells without a name: as far as it may have come.
    memory = pages.at(0)
    start = 8 * CELLS + len(json.dumps(["requests", [], 4, 1], separators=(",", ":"))) + 1
    memory[start : start + 10] = b'["half","'.ljust(10)
    cells.values[1] += 1

    assert rows(cells) == before
    pages.fold(0)
    assert [row.metric for page in pages.read() for row in page.rows] == ["requests"]


def test_a_process_that_died_before_it_counted_leaves_nothing():
    pages = shared()
    pages.fold(0)
    assert [page.rows for page in pages.read()] == [[]]


def test_without_a_place_a_process_counts_for_itself(logs):
    pages = shared(places=1)
    cells = Cells(pages, 2)
    cells.values[cells.claim("requests")] += 1

    assert rows(cells) == [Row("requests", (), (1.0,))]
    assert [page.rows for page in pages.read()] == [[]]
    pages.fold(2)
    assert [line["event"] for line in logs] == ["no page is left to count in"]


@pytest.mark.parametrize("label", ["short", "x" * 2000])
def test_where_there_is_no_room_left_counting_goes_on_and_one_line_says_so(logs, label: str):
    cells = Cells()
    claimed = [cells.claim("durations", (f"{label}{number}",), size=17) for number in range(3000)]
    for first in claimed:
        cells.values[first + 16] += 1

    shown = rows(cells)
    assert 300 < len(shown) < 3000
    assert all(row.values == (*[0.0] * 16, 1.0) for row in shown)
    assert [line["event"] for line in logs] == ["no room is left to count in"]
