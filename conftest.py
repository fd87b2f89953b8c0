import os
from collections.abc import Generator

import pytest

# Where every program is installed a skipped test is a hole in the gate.
SKIPS_FAIL = bool(os.environ.get("SKIPS_FAIL"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
