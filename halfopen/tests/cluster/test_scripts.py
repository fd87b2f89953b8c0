"""The scripts in a real Redis and their model for the simulation give the same answers."""

import json
import os
from typing import Any

import pytest
import redis as client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis_server import RedisServer
from simulated_redis import SimulatedRedis

from halfopen.redis import scripts

# Chances are such that circuits open, are claimed and settled, again and again.
NODES = st.sampled_from(["a", "a", "b"])
EPOCHS = st.sampled_from(["stored"] * 8 + ["0", "newer"])
STEP = st.one_of(
    st.tuples(
        st.just("report"),
        NODES,
        EPOCHS,
        st.integers(0, 3),  # threshold
        st.sampled_from([1, 1, 2]),  # quorum
        st.booleans(),  # vote
        st.lists(st.sampled_from([0, 0, 1, 250, 500, 1_999, 2_000]), max_size=3),  # ages
    ),
    st.tuples(st.just("claim"), NODES, EPOCHS),
    st.tuples(
        st.just("settle"),
        NODES,
        EPOCHS,
        st.sampled_from(["success", "failure", "neutral"]),
        st.sampled_from([1, 1, 2]),  # successes needed
    ),
    st.tuples(
        st.just("look"),
        NODES,
        EPOCHS,
        st.sampled_from(["closed", "open", "half_open", "isolated"]),
        st.sampled_from([0, 300, 500]),
        st.sampled_from([0, 0, 0, 0, 0, 1, 2]),  # order
    ),
    st.tuples(st.just("wait"), st.sampled_from([1, 249, 250, 300, 500, 500, 2_000, 3_501])),
)


def outage(opener, claimer, verdict, waits):
    """Everybody is alive, one node opens the circuit, one tries again, after so long."""
    return [
        *(("look", node, "stored", "closed", 0, 0) for node in "ab"),
        ("report", opener, "stored", 0, 1, True, []),
        ("wait", waits),
        ("claim", claimer, "stored"),
        ("settle", claimer, "stored", verdict, 1),
    ]


STEPS = st.lists(
    st.one_of(
        STEP.map(lambda step: [step]),
        st.builds(
            outage,
            NODES,
            NODES,
            st.sampled_from(["success", "failure"]),
            st.sampled_from([499, 500, 501, 750]),
        ),
    ),
    min_size=3,
    max_size=20,
).map(lambda parts: [step for part in parts for step in part])


class Real:
    """The scripts as they are, but with the test's clock, and a list instead of the channel."""

    def __init__(self, port: int) -> None:
        self._redis = client.Redis(port=port, decode_responses=True)
        self._scripts = {
            name: self._redis.register_script(
                getattr(scripts, name.upper())
                .replace("redis.call('TIME')", "redis.call('HMGET', 'clock', 's', 'us')")
                .replace("'PUBLISH'", "'RPUSH'")
            )
            for name in ("report", "claim", "settle", "look")
        }

    def start_over(self) -> None:
        self._redis.flushall()

    def set_clock(self, micros: int) -> None:
        self._redis.hset("clock", mapping={"s": micros // 1_000_000, "us": micros % 1_000_000})

    def run(self, script: str, keys: list[str], arguments: list[Any]) -> Any:
        return self._scripts[script](keys=keys, args=arguments)

    def published(self) -> list[str]:
        return self._redis.lrange("channel", 0, -1)

    def close(self) -> None:
        self._redis.close()


@pytest.fixture(scope="module")
def real(redis_server: RedisServer):
    real = Real(redis_server.port)
    yield real
    real.close()


@settings(
    max_examples=int(os.environ.get("SCRIPT_EXAMPLES", "200")),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_the_model_answers_as_the_scripts_do(real, steps):
    micros = 1_790_000_000_123_456
    published: list[str] = []
    model = SimulatedRedis(lambda: micros, published.append)
    real.start_over()
    number = 0
    stored = 0
    for step in steps:
        if step[0] == "wait":
            micros += step[1] * 1_000
            continue
        real.set_clock(micros)
        script, node, epoch = step[:3]
        seen = {"0": 0, "stored": stored, "newer": stored + 7}[epoch]
        if script == "look":
            keys = ["nodes", "circuit"]
            arguments = [node, "channel", "op", seen, step[3], step[4], step[5]]
        else:
            keys = ["circuit", "failures", "nodes"]
            arguments = [node, "channel", "op", seen]
        if script == "report":
            threshold, quorum, vote, ages = step[3:]
            arguments += [threshold, 2_000, quorum, 500, int(vote)]
            for age in ages:
                number += 1
                arguments += [number, age]
        elif script == "claim":
            arguments += [300]
        elif script == "settle":
            arguments += [step[3], 500, step[4]]
        expected = model.run(script, keys, arguments)
        assert real.run(script, keys, arguments) == expected
        stored = model.store.circuits["circuit"].epoch if model.store.circuits else 0
    heard = [json.loads(message) for message in real.published()]
    assert heard == [json.loads(message) for message in published]
