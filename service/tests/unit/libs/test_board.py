import os

from event_service.libs.board import Board


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def test_all_processes_can_read_each_ones_text():
    clock = Clock()
    board = Board(3, size=100, clock=clock)
    board.put(0, b"first")
    clock.now += 1.5
    board.put(2, b"third")

    assert [tuple(post) for post in board.read()] == [(0, 1.5, b"first"), (2, 0.0, b"third")]


def test_a_text_replaces_the_one_before_and_an_empty_one_takes_it_down():
    board = Board(1, size=100)
    board.put(0, b"a long text")
    board.put(0, b"short")
    assert [post.text for post in board.read()] == [b"short"]

    board.put(0, b"")

    assert board.read() == []


def test_a_text_that_is_too_long_or_has_no_place_is_not_published():
    board = Board(1, size=4)

    assert not board.put(0, b"12345")
    assert not board.put(1, b"1")
    assert board.read() == []


def test_a_child_and_its_parent_read_each_other():
    board = Board(2, size=100)
    board.put(0, b"parent")
    child = os.fork()
    if not child:
        seen = [post.text for post in board.read()]
        board.put(1, b"child" if seen == [b"parent"] else b"nothing")
        os._exit(0)
    os.waitpid(child, 0)

    assert [post.text for post in board.read()] == [b"parent", b"child"]


def test_a_text_that_is_being_written_is_not_read_half():
    board = Board(1, size=2_000_000)
    board.put(0, b"a" * 2_000_000)
    child = os.fork()
    if not child:
        for number in range(200):
            board.put(0, (b"a" if number % 2 else b"b") * 2_000_000)
        os._exit(0)
    mixed = 0
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        mixed += sum(len(set(post.text)) != 1 for post in board.read())

    assert not mixed
