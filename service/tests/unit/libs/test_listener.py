import contextlib
import errno
import select
import socket
import sys
import threading
from itertools import product

import pytest

from event_service.libs.listener import CannotListen, Listener, take_no_more

COUNTS = pytest.mark.parametrize("count", [1, 3], ids=["alone", "several"])
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a queue for each")


@COUNTS
def test_nobody_shares_the_port_not_even_who_would_let_others_share(count: int):
    listener = Listener("127.0.0.1", 0, count=count)
    refused = []
    for reuse, share, host in product((0, 1), (0, 1), ("127.0.0.1", "0.0.0.0")):
        with socket.socket() as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, share)
            with pytest.raises(OSError, match="already in use"):
                _listen(stranger, host, listener.port)
            refused.append((reuse, share, host))
    listener.close()

    assert len(refused) == 8


def _listen(stranger: socket.socket, host: str, port: int) -> None:
    stranger.bind((host, port))
    stranger.listen()


@COUNTS
def test_a_port_that_others_would_share_is_taken(count: int):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        _listen(other, "127.0.0.1", 0)
        with pytest.raises(CannotListen) as raised:
            Listener("127.0.0.1", other.getsockname()[1], count=count)

    assert raised.value.port_is_at_fault
    assert "Address already in use" in str(raised.value)


@COUNTS
def test_of_those_who_ask_at_the_same_instant_one_gets_it(count: int):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    for _ in range(50):
        got: list[Listener] = []
        together = threading.Barrier(3)

        def ask(got=got, together=together) -> None:
            together.wait()
            with contextlib.suppress(CannotListen):
                got.append(Listener("127.0.0.1", port, count=count))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for listener in got:
            listener.close()
        assert len(got) == 1


@linux
def test_each_worker_gets_its_share_of_what_comes_at_once():
    listener = Listener("127.0.0.1", 0, count=2)
    clients = [socket.create_connection(("127.0.0.1", listener.port)) for _ in range(64)]
    shares = [_accept_all(listener.queue(number)) for number in (1, 2)]
    for client in clients:
        client.close()
    listener.close()

    assert sum(shares) == 64
    assert min(shares) > 8


def _accept_all(queue: socket.socket) -> int:
    queue.setblocking(False)
    count = 0
    while True:
        try:
            queue.accept()[0].close()
        except BlockingIOError:
            return count
        count += 1


@COUNTS
def test_a_worker_keeps_only_its_own_queue_open(count: int):
    listener = Listener("127.0.0.1", 0, count=count)
    kept = listener.keep(1)
    assert kept.fileno() >= 0
    assert [listener.queue(number + 1).fileno() for number in range(1, count)] == [-1] * (count - 1)
    listener.close()
    assert kept.fileno() == -1


@pytest.mark.parametrize("host", ["nowhere.invalid", "exa mple", "192.0.2.1", "a" * 70 + ".b"])
def test_another_port_would_not_mend_a_wrong_host(host: str):
    with pytest.raises(CannotListen) as raised:
        Listener(host, 0)

    assert not raised.value.port_is_at_fault
    assert str(raised.value).startswith(f"Cannot listen on {host} port 0 (")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can do it")
def test_before_it_closes_nobody_else_gets_in_and_those_who_are_in_are_served():
    listener = Listener("127.0.0.1", 0)
    address = ("127.0.0.1", listener.port)
    with socket.create_connection(address) as early, socket.socket() as late:
        take_no_more(listener.queue(1))
        late.setblocking(False)
        with pytest.raises(BlockingIOError):
            late.connect(address)
        early.sendall(b"asked")
        accepted, _ = listener.queue(1).accept()
        with accepted:
            assert accepted.recv(10) == b"asked"
        assert select.select([], [late], [], 0) == ([], [], [])
        listener.close()
        late.setblocking(True)
        late.settimeout(30)
        # Its next attempt, a second after the first one, finds the port closed.
        select.select([], [late], [], 30)
        assert late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED
