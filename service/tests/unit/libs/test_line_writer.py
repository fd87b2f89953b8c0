import fcntl
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from event_service.libs.line_writer import LineWriter

PIPE = 64 * 1024


def lost(count: int) -> bytes:
    return b"lost %d" % count


@contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    for end in (reader, writer):
        with suppress(OSError):
            os.close(end)


def read_until(reader: int, done: Callable[[bytes], bool]) -> bytes:
    found = b""
    while not done(found):
        found += os.read(reader, 65536)
    return found


def told(found: bytes) -> list[int]:
    """How many lines were said to be lost, in whole lines."""
    whole = found[: found.rfind(b"\n") + 1].splitlines()
    return [int(line.split()[1]) for line in whole if line.startswith(b"lost")]


def test_lines_are_written_in_their_order_and_the_end_waits_for_them():
    with pipe() as (reader, descriptor):
        writer = LineWriter(descriptor, lost=lost)
        for number in range(1000):
            writer.write(b"%d\n" % number)
        writer.close()
        os.close(descriptor)
        found = read_until(reader, lambda found: found.endswith(b"999\n"))

    assert found.splitlines() == [b"%d" % number for number in range(1000)]
    assert writer.dropped == 0


def test_lines_after_the_end_are_written_too():
    with pipe() as (reader, descriptor):
        writer = LineWriter(descriptor, lost=lost, idle=0)
        writer.close()
        writer.write(b"late\n")
        assert os.read(reader, 100) == b"late\n"


def test_an_unread_pipe_blocks_nobody_and_the_lost_lines_are_counted():
    line = b"x" * 999 + b"\n"
    with pipe() as (reader, descriptor):
        writer = LineWriter(descriptor, lost=lost, limit=100_000)
        for _ in range(1000):
            writer.write(line)
        dropped = writer.dropped
        assert dropped > 500
        writer.close()  # gives up on what nobody takes

        found = read_until(reader, lambda found: sum(told(found)) == dropped)
        writer.write(b"after\n")
        found += read_until(reader, lambda found: found.endswith(b"after\n"))

    lines = found.splitlines()
    assert lines.count(line[:-1]) == 1000 - dropped
    assert lines[-1] == b"after"
    assert writer.dropped == dropped


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is full")
def test_on_a_full_disk_lines_are_counted_as_lost():
    full = os.open("/dev/full", os.O_WRONLY)
    writer = LineWriter(full, lost=lost)
    for _ in range(3):
        writer.write(b"one\ntwo\n")
        writer.close()
    os.close(full)

    assert writer.dropped == 6


def test_after_a_full_disk_has_room_writing_starts_on_a_new_line():
    """What fits of a line stays there, and the next one begins a new one."""
    resource = pytest.importorskip("resource")
    signal = pytest.importorskip("signal")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with tempfile.TemporaryFile() as file:
        writer = LineWriter(file.fileno(), lost=lost)
        resource.setrlimit(resource.RLIMIT_FSIZE, (7, limits[1]))
        try:
            writer.write(b"12345678\n")
            writer.close()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        writer.write(b"next\n")
        writer.close()
        file.seek(0)
        found = file.read()

    assert found.splitlines() == [b"1234567", b"next", b"lost 1"]
    assert writer.dropped == 1


def test_a_reader_who_has_gone_harms_nobody():
    with pipe() as (reader, descriptor):
        os.close(reader)
        writer = LineWriter(descriptor, lost=lost)
        writer.write(b"line\n")
        writer.close()

        assert writer.dropped == 1


def test_a_descriptor_that_does_not_block_is_waited_for():
    with pipe() as (reader, descriptor):
        os.set_blocking(descriptor, False)
        writer = LineWriter(descriptor, lost=lost)
        writer.write(b"x" * 3 * PIPE + b"\n")
        assert len(read_until(reader, lambda found: found.endswith(b"\n"))) == 3 * PIPE + 1


def test_long_pieces_of_several_processes_do_not_mix():
    with pipe() as (reader, descriptor), tempfile.TemporaryFile() as lock:
        children = []
        for letter in (b"a", b"b"):
            child = os.fork()
            if child == 0:
                writer = LineWriter(descriptor, lost=lost, lock=lock.fileno())
                for _ in range(200):
                    writer.write(letter * 4999 + b"\n")
                writer.close()
                os._exit(0)
            children.append(child)
        os.close(descriptor)
        found = b""
        while part := os.read(reader, 4096):
            found += part
        for child in children:
            assert os.waitpid(child, 0)[1] == 0

    assert {bytes([line[0]]) * 4999 == line for line in found.splitlines()} == {True}
    assert len(found.splitlines()) == 400


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such locks")
def test_the_lock_is_free_between_pieces():
    with pipe() as (reader, descriptor), tempfile.TemporaryFile() as lock:
        writer = LineWriter(descriptor, lost=lost, lock=lock.fileno())
        writer.write(b"line\n")
        writer.close()
        fcntl.lockf(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert os.read(reader, 10) == b"line\n"


def test_the_thread_ends_when_there_is_nothing_to_write():
    others = set(threading.enumerate())
    with pipe() as (reader, descriptor):
        writer = LineWriter(descriptor, lost=lost, idle=0)
        writer.write(b"line\n")
        assert os.read(reader, 10) == b"line\n"
        for thread in set(threading.enumerate()) - others:
            thread.join(10)
            assert not thread.is_alive()
        writer.write(b"again\n")
        assert os.read(reader, 10) == b"again\n"
