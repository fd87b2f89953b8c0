import os
from collections.abc import Generator

import pytest

# pytest names a test module after its folders. Imported before, the package `halfopen` is not
# mistaken for the folder of that name.
import halfopen  # noqa: F401

# Where every program is installed a skipped test is a hole in the gate.
SKIPS_FAIL = bool(os.environ.get("SKIPS_FAIL"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
