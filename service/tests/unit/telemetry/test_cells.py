import os
from pathlib import Path

from event_service.telemetry.cells import Cells, Row


def rows(cells: Cells) -> list[Row]:
    return [row for page in cells.pages() for row in page.rows]


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


def test_those_who_share_a_folder_read_each_other(tmp_path: Path):
    one, other = Cells(tmp_path), Cells(tmp_path)
    one.values[one.claim("requests")] += 1
    other.values[other.claim("requests")] += 2

    assert sorted(rows(one)) == sorted(rows(other))
    assert sorted(row.values for row in rows(one)) == [(1.0,), (2.0,)]
    assert all(page.alive for page in one.pages())


def test_a_page_outlives_its_process_and_is_known_to(tmp_path: Path):
    one, other = Cells(tmp_path), Cells(tmp_path)
    other.values[other.claim("requests")] += 2
    del other

    pages = sorted(one.pages(), key=lambda page: page.alive)
    assert [page.alive for page in pages] == [False, True]
    assert pages[0].rows == [Row("requests", (), (2.0,))]


def test_pages_take_the_room_of_what_is_used(tmp_path: Path):
    cells = Cells(tmp_path)
    for number in range(100):
        cells.claim("durations", (str(number),), size=17)

    (path,) = tmp_path.iterdir()
    assert path.stat().st_blocks * 512 < 128 * 1024
