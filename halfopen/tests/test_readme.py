import asyncio
import inspect
import re
from pathlib import Path

import pytest

from halfopen import CircuitOpen, State

README = Path(__file__).parents[1] / "README.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda code: code.split("\n")[0][:40])
def test_an_example_runs(example):
    names = {"__name__": "readme"}
    try:
        exec(compile(example, str(README), "exec", dont_inherit=True), names)
    except ModuleNotFoundError as missing:
        pytest.skip(f"needs {missing.name}")
    main = names.get("main")
    if inspect.iscoroutinefunction(main):
        asyncio.run(main())


def test_the_web_handler_says_when_to_come_back():
    pytest.importorskip("starlette")
    (example,) = (example for example in EXAMPLES if "exception_handlers" in example)
    names = {"__name__": "readme"}
    exec(compile(example, str(README), "exec", dont_inherit=True), names)

    refused = CircuitOpen("orders", State.OPEN, 9.2, None)
    answer = asyncio.run(names["unavailable"](None, refused))

    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "10"


def test_the_prometheus_recipe_follows_the_breaker():
    pytest.importorskip("prometheus_client")
    (example,) = (example for example in EXAMPLES if "BreakerCollector" in example)
    names = {"__name__": "readme"}
    exec(compile(example, str(README), "exec", dont_inherit=True), names)

    names["orders"].trip()

    labels = {"breaker": "orders", "state": "open"}
    assert names["metrics"].get_sample_value("circuit_breaker_state", labels) == 1
