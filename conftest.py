import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# pytest names a test module after its folders. Imported before, the package `halfopen` is not
# mistaken for the folder of that name.
import halfopen  # noqa: F401

# Where every program is installed a skipped test is a hole in the gate.
SKIPS_FAIL = bool(os.environ.get("SKIPS_FAIL"))
REPOSITORY = Path(__file__).parent
# On a busy machine any example may take long.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")
# Debian's package of a program that a test may need, where it has another name.
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
# Debian keeps servers out of an ordinary user's PATH.
FOLDERS = ["/usr/local/sbin", "/usr/sbin", *map(str, Path("/usr/lib/postgresql").glob("*/bin"))]


def pytest_configure(config: pytest.Config) -> None:
    # What a shell has its background jobs ignore, and nohup, their children would ignore as well.
    for number, usual in (
        (signal.SIGINT, signal.default_int_handler),
        (signal.SIGHUP, signal.SIG_DFL),
    ):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)
    for marker in (
        "browser: needs Chromium",
        "needs(*programs): skipped where one of these programs is not installed",
        "slow: `make test-quick` leaves it out",
        "xdist_group(name): stays in one process with all others of that name",
    ):
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For `--dist loadgroup`: each file stays together, so that its servers start once.

    A test with a `xdist_group` of its own goes by that. What runs processes is slow and comes
    first, or the last of them would run alone. What needs a program counts as slow.
    """
    for item in items:
        if item.get_closest_marker("needs") or "needs" in getattr(item, "fixturenames", ()):
            item.add_marker("slow")
        if not item.get_closest_marker("xdist_group"):
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(REPOSITORY))))
    items.sort(key=lambda item: item.path.parent != REPOSITORY / "tests")


@pytest.fixture(scope="session", autouse=True)
def nothing_of_the_contributor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The settings of whoever runs the tests, in the environment or in `.env`, reach no test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("elsewhere"))
        for name in os.environ:
            if name.startswith("EVENT_SERVICE_"):
                patch.delenv(name)
        yield


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("needs"):
        for program in marker.args:
            find(program)


@pytest.fixture(scope="session")
def needs() -> Callable[[str], Path]:
    """For fixtures: `needs("postgres")` is where the program is, or skips the test."""
    return find


def find(program: str) -> Path:
    """The program's path. Skips the test, with one line that says how to get it, without one.

    A name with a `/` is a file or folder of this repository that `make` gets.
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
    """One line for each reason why tests were skipped, however many they are."""
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
