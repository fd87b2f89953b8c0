import logging

import pytest

from event_service.signals import CacheHit, LoadShed, Signals


def test_each_listener_hears_its_kinds_in_the_order_in_which_they_came():
    signals = Signals()
    heard: list[object] = []
    signals.on(CacheHit, lambda signal: heard.append(("first", signal)))
    signals.on(CacheHit, lambda signal: heard.append(("second", signal)))

    signals.emit(CacheHit("getUsers"))
    signals.emit(LoadShed())

    assert heard == [("first", CacheHit("getUsers")), ("second", CacheHit("getUsers"))]


def test_one_that_raises_is_logged_and_the_others_hear(caplog: pytest.LogCaptureFixture):
    signals = Signals()
    heard: list[object] = []

    def broken(_signal: LoadShed) -> None:
        raise KeyError("unknown")

    signals.on(LoadShed, broken)
    signals.on(LoadShed, heard.append)
    with caplog.at_level(logging.ERROR):
        signals.emit(LoadShed())

    assert heard == [LoadShed()]
    assert "KeyError" in caplog.text
