"""Many processes, many callers each, one Redis: one call of the upstream for each cooldown.

`make canaries` is the whole proof, 8 processes of 1000 callers through 50 cooldowns.
"""

import asyncio
import itertools
import os
import subprocess
import sys

import pytest
import worker

pytestmark = pytest.mark.anyio

PROCESSES = int(os.environ.get("PROCESSES", "2"))
CALLERS = int(os.environ.get("CALLERS", "30"))
COOLDOWNS = int(os.environ.get("COOLDOWNS", "3"))


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.timeout(180)
async def test_processes_send_exactly_one_call_in_each_cooldown(redis_server, tmp_path):
    log = tmp_path / "calls"
    log.touch()
    sizes = [str(size) for size in (PROCESSES, CALLERS, COOLDOWNS)]
    command = [sys.executable, worker.__file__, redis_server.url, str(log), *sizes]
    processes = [
        await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        figures = await asyncio.gather(*(each.communicate() for each in processes))
    finally:
        for each in processes:
            if each.returncode is None:
                each.kill()
                await each.wait()

    calls = [line.split() for line in log.read_text().splitlines()]
    for fence, after in itertools.pairwise(int(fence) for _, fence in calls):
        assert 0 < fence < after, f"a call without a grant of its own; {figures}"
    gaps = [float(b) - float(a) for (a, _), (b, _) in itertools.pairwise(calls)]
    assert min(gaps) >= worker.COOLDOWN, figures
    assert len(calls) == COOLDOWNS
