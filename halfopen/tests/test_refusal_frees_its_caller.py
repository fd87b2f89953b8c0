import gc
import weakref

import pytest

from halfopen import CircuitBreaker, CircuitOpen


class Held:
    """Stands for whatever a refused caller holds: a connection, say."""


def test_a_refusal_frees_its_callers_objects_without_the_garbage_collector():
    breaker = CircuitBreaker("x")
    breaker.trip()
    held = Held()
    ref = weakref.ref(held)

    def caller(_held: Held) -> None:
        breaker.acquire()

    gc.disable()
    try:
        with pytest.raises(CircuitOpen):
            caller(held)
        del held

        assert ref() is None
    finally:
        gc.enable()
