"""The four scripts once more, in Python, for the simulation. `test_scripts.py` holds them equal."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from halfopen.redis.scripts import NODE_TTL_MS, YIELD_MS


@dataclass(frozen=True)
class Circuit:
    epoch: int = 0
    state: str = "closed"
    ends: int = 0
    holder: str = ""
    successes: int = 0
    changed: int = 0
    opener: str = ""
    closer: str = ""
    failed: str = ""


@dataclass
class Store:
    """What Redis holds; a copy of it is what a replica holds."""

    circuits: dict[str, Circuit] = field(default_factory=dict)
    failures: dict[str, dict[str, int]] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)

    def copy(self) -> "Store":
        failures = {key: dict(members) for key, members in self.failures.items()}
        return Store(dict(self.circuits), failures, dict(self.nodes))


class SimulatedRedis:
    """`micros` is its clock; `publish` gets what a decision publishes. `scripts` runs one step."""

    def __init__(
        self,
        micros: Callable[[], int],
        publish: Callable[[str], None],
        scripts: "type[Scripts] | None" = None,
    ) -> None:
        self.store = Store()
        self._scripts = scripts or Scripts
        self._micros = micros
        self._publish = publish

    def run(self, script: str, keys: list[str], arguments: list[Any]) -> list[Any]:
        texts = [str(argument) for argument in arguments]
        return self._scripts(self.store, self._micros(), self._publish).run(script, keys, texts)


class Scripts:
    def __init__(self, store: Store, micros: int, publish: Callable[[str], None]) -> None:
        self.store = store
        self.micros = micros
        self.now = micros // 1000
        self.publish = publish

    def run(self, script: str, keys: list[str], texts: list[str]) -> list[Any]:
        self.node = texts[0]
        return getattr(self, script)(keys, texts)

    def load(self, key: str) -> Circuit:
        return self.store.circuits.get(key, Circuit())

    def view(self, circuit: Circuit) -> list[str]:
        left = max(0, circuit.ends - self.now)
        return [str(circuit.epoch), circuit.state, str(left), circuit.holder]

    def tell(self, key: str, operation: str, circuit: Circuit) -> Circuit:
        self.store.circuits[key] = circuit
        self.publish(json.dumps([operation, self.view(circuit), self.node]))
        return circuit

    def decide(
        self,
        key: str,
        operation: str,
        circuit: Circuit,
        seen: int,
        state: str,
        lasts: int,
        **also: Any,
    ) -> Circuit:
        decided = replace(
            circuit,
            epoch=max(circuit.epoch + 1, seen + 1, self.micros),
            state=state,
            ends=self.now + lasts,
            changed=self.now,
            **{"holder": "", **also},
        )
        return self.tell(key, operation, decided)

    def report(self, keys: list[str], texts: list[str]) -> list[Any]:
        key, operation, seen = keys[0], texts[2], int(texts[3])
        threshold, window, quorum, cooldown = (int(text) for text in texts[4:8])
        circuit = self.load(key)
        if circuit.state != "closed" or seen > circuit.epoch:
            return self.view(circuit)
        members = self.store.failures.setdefault(keys[1], {})
        for number, age in zip(texts[9::2], texts[10::2], strict=True):
            at = self.now - int(age)
            if at >= circuit.changed:
                members[f"f:{number}:{self.node}"] = at
        if texts[8] == "1":
            members[f"v:0:{self.node}"] = self.now
        for member in [each for each, at in members.items() if at < self.now - window]:
            del members[member]
        failures = sum(member[0] == "f" for member in members)
        votes = len(members) - failures
        witnesses = {member.split(":", 2)[2] for member in members}
        tripped = (threshold > 0 and failures >= threshold) or votes >= quorum
        if not tripped or len(witnesses) < quorum:
            return self.view(circuit)
        alone = len(witnesses) == 1
        if (
            alone
            and circuit.opener in witnesses
            and circuit.closer != circuit.opener
            and self.now - circuit.changed < window
        ):
            return self.view(circuit)
        opener = next(iter(witnesses)) if alone else ""
        members.clear()
        circuit = replace(circuit, opener=opener, closer="", failed="", successes=0)
        return self.view(self.decide(key, operation, circuit, seen, "open", cooldown))

    def claim(self, keys: list[str], texts: list[str]) -> list[Any]:
        key, operation, seen, lease = keys[0], texts[2], int(texts[3]), int(texts[4])
        circuit = self.load(key)
        if seen > circuit.epoch:
            circuit = replace(circuit, state="open", ends=self.now, holder="")
        if circuit.state not in {"open", "half_open"}:
            return ["0", *self.view(circuit)]
        waits_until = circuit.ends
        alive = sum(at >= self.now - NODE_TTL_MS for at in self.store.nodes.values())
        if circuit.failed == self.node and alive > 1:
            waits_until += YIELD_MS
        if self.now < waits_until:
            epoch, state, _left, holder = self.view(circuit)
            return ["0", epoch, state, str(waits_until - self.now), holder]
        granted = self.decide(key, operation, circuit, seen, "half_open", lease, holder=self.node)
        return ["1", *self.view(granted)]

    def settle(self, keys: list[str], texts: list[str]) -> list[Any]:
        key, operation, fence, verdict = keys[0], texts[2], int(texts[3]), texts[4]
        cooldown, needed = int(texts[5]), int(texts[6])
        circuit = self.load(key)
        holds = (circuit.epoch, circuit.holder, circuit.state) == (fence, self.node, "half_open")
        if not holds and circuit.epoch >= fence:
            return ["0", *self.view(circuit)]
        if verdict == "failure":
            circuit = replace(circuit, successes=0, failed=self.node)
            circuit = self.decide(key, operation, circuit, fence, "open", cooldown)
        elif verdict == "success" and circuit.successes + 1 >= needed:
            circuit = replace(circuit, successes=0, failed="", closer=self.node)
            self.store.failures.pop(keys[1], None)
            circuit = self.decide(key, operation, circuit, fence, "closed", 0)
        else:
            if verdict == "success":
                circuit = replace(circuit, successes=circuit.successes + 1, failed="")
            circuit = self.decide(key, operation, circuit, fence, "half_open", 0)
        return ["1", *self.view(circuit)]

    def look(self, keys: list[str], texts: list[str]) -> list[Any]:
        nodes = self.store.nodes
        nodes[self.node] = self.now
        for gone in [each for each, at in nodes.items() if at < self.now - NODE_TTL_MS]:
            del nodes[gone]
        answer: list[Any] = [len(nodes)]
        for index, key in enumerate(keys[1:]):
            operation, seen_text, state, left, order = texts[2 + 5 * index : 7 + 5 * index]
            circuit, seen = self.load(key), int(seen_text)
            if order == "1" or (order == "2" and seen >= circuit.epoch):
                circuit = replace(circuit, opener="", closer="", failed="", successes=0)
                circuit = self.decide(key, operation, circuit, seen, state, int(left))
            elif seen > circuit.epoch:
                restored = Circuit(
                    epoch=seen,
                    state="open" if state == "half_open" else state,
                    ends=self.now + int(left),
                    changed=self.now,
                )
                circuit = self.tell(key, operation, restored)
            answer.append(self.view(circuit))
        return answer
