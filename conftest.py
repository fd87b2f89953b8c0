import os
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# pytest names a test module after its folders. Import the package `halfopen` first, so that it is
# not mistaken for the folder of that name.
import halfopen  # noqa: F401

# In continuous integration every program is installed, so no test may be skipped.
SKIPS_FAIL = bool(os.environ.get("SKIPS_FAIL"))
# Long proofs in full, as continuous integration wants them: `make test LONG=1`.
LONG = bool(os.environ.get("LONG"))
REPOSITORY = Path(__file__).parent
# On a busy machine any example may be slow.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Debian's package for a program that a test may need, if the names differ.
PACKAGES = {
    "initdb": "postgresql",
    "nginx": "nginx-light",
    "node": "nodejs",
    "postgres": "postgresql",
    "promtool": "prometheus",
    "systemd-analyze": "systemd",
    "taskset": "util-linux",
}
OTHER_NAMES = {"chromium": ["chromium-browser"]}
# Variables of a contributor that change what is tested, or how it is printed.
PERSONAL = re.compile(
    r"(EVENT_SERVICE|OTEL)_.*|(http|https|all|no)_proxy|FORCE_COLOR|NO_COLOR|COLUMNS", re.IGNORECASE
)
# On Debian servers are not in an ordinary user's PATH.
FOLDERS = ["/usr/local/sbin", "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]


def pytest_configure(config: pytest.Config) -> None:
    # Restore signals that a shell or nohup made us ignore; child processes would ignore them, too.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    for marker in (
        "browser: needs Chromium",
        "long: only `make test LONG=1` runs it",
        "needs(*programs): skipped where one of these programs is not installed",
        "slow: `make test-quick` leaves it out",
    ):
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that need a program count as slow; long ones are left out of the short form.

    Files whose tests run processes take longest and come first: otherwise the last would run alone.
    """
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if item.get_closest_marker("needs") or {"needs", "redis_server"}.intersection(fixtures):
            item.add_marker("slow")
    if not LONG:
        long = [item for item in items if item.get_closest_marker("long")]
        items[:] = [item for item in items if item not in long]
        config.hook.pytest_deselected(items=long)
    items.sort(key=lambda item: item.path.parent != REPOSITORY / "tests")


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_contributor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hide the contributor's own environment and `.env` from all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        for name in os.environ:
            if PERSONAL.fullmatch(name):
                patch.delenv(name)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            find(program)


@pytest.fixture(scope="session")
def times() -> Callable[[int, int], int]:
    """`times(6, 24)` is 6, and 24 in the long form."""
    return lambda short, long: long if LONG else short


@pytest.fixture(scope="session")
def needs() -> Callable[[str], Path]:
    """For fixtures: `needs("postgres")` returns the program's path, or skips the test."""
    return find


def find(program: str) -> Path:
    """The program's path. If it is missing, skips the test and says how to install it.

    A name with a `/` is a file or folder of this repository that `make` creates.
    """
    if "/" in program:
        if not (REPOSITORY / program).exists():
            pytest.skip(f"needs {program}: npm ci --prefix {Path(program).parent}")
        return REPOSITORY / program
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), *FOLDERS])
    for name in [program, *OTHER_NAMES.get(program, [])]:
        if found := shutil.which(name, path=path):
            return Path(found)
    pytest.skip(f"needs {program}: apt-get install {PACKAGES.get(program, program)}")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line for each reason for skipped tests, however many there are."""
    reasons = Counter(
        str(report.longrepr[2]).removeprefix("Skipped: ")
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"skipped {count}: {reason}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if SKIPS_FAIL and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
    return report
