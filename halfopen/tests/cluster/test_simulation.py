"""Thousands of short lives of a cluster in which everything goes wrong that can.

`SEEDS` says how many; `python halfopen/tests/cluster/simulation.py SEED` tells one's story.
"""

import logging
import os
from dataclasses import replace

import pytest
import simulation
from simulated_redis import Scripts

SEEDS = int(os.environ.get("SEEDS", "80"))
PARTS = 8
FEW = 300


@pytest.fixture(autouse=True)
def _quiet(caplog):
    caplog.set_level(logging.CRITICAL)


@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", range(PARTS))
def test_nodes_never_disagree_for_long_nor_send_two_canaries(part):
    for seed in range(part, SEEDS, PARTS):
        simulation.run(seed)


def test_a_seed_always_lives_the_same_life():
    assert simulation.run(7).story == simulation.run(7).story


class WithoutFence(Scripts):
    """Any verdict counts, whoever holds the canary's lease."""

    def settle(self, keys, texts):
        circuit = replace(self.load(keys[0]), state="half_open", holder=self.node)
        self.store.circuits[keys[0]] = circuit
        return super().settle(keys, [*texts[:3], str(circuit.epoch), *texts[4:]])


class WithoutClock(Scripts):
    """Epochs only count on, so a failover brings lost ones back."""

    def decide(self, key, operation, circuit, seen, state, lasts, **also):
        self.micros, kept = 0, self.micros
        try:
            return super().decide(key, operation, circuit, 0, state, lasts, **also)
        finally:
            self.micros = kept


class WithoutLease(Scripts):
    """A canary in flight keeps nobody from sending another."""

    def claim(self, keys, texts):
        circuit = self.load(keys[0])
        if circuit.state == "half_open":
            self.store.circuits[keys[0]] = replace(circuit, ends=self.now)
        return super().claim(keys, texts)


class WithoutEnd(Scripts):
    """A lease never ends, so a lost holder blocks the circuit."""

    def claim(self, keys, texts):
        circuit = self.load(keys[0])
        if circuit.state == "half_open" and circuit.holder:
            self.store.circuits[keys[0]] = replace(circuit, ends=self.now + 60_000)
        return super().claim(keys, texts)


@pytest.mark.parametrize("broken", [WithoutFence, WithoutClock, WithoutLease, WithoutEnd])
def test_it_notices_a_protocol_that_is_broken(broken):
    def live_many_lives():
        for seed in range(FEW):
            simulation.run(seed, broken)

    with pytest.raises(AssertionError):
        live_many_lives()
