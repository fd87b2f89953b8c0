"""A test that needs a program which is not there says how to get it, and is a hole in the gate."""

import re
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

CONFTEST = Path(__file__).parent.parent / "conftest.py"
MARKED = """
    import pytest

    @pytest.mark.needs("openssl", "wrk")
    def test_something():
        pass
"""
IN_A_FIXTURE = """
    import pytest

    @pytest.fixture
    def program(needs):
        return needs("wrk")

    def test_something(program):
        assert program.is_absolute()
"""
OF_NODE = """
    import pytest

    @pytest.mark.needs("tests/nowhere/node_modules")
    def test_something():
        pass
"""
LONG = """
    import pytest

    def test_something(times):
        assert times(2, 5) == ROUNDS

    @pytest.mark.long
    def test_in_full():
        pass
"""
PROCESS = """
    import os
    from pathlib import Path

    import pytest

    @pytest.mark.parametrize("number", range(4))
    def test_something(number):
        with Path(__file__).with_suffix(".ids").open("a") as file:
            print(os.getpid(), file=file)
"""
SETTINGS = """
    import os
    from pathlib import Path

    def test_something():
        assert not {"EVENT_SERVICE_PORT", "OTEL_SDK_DISABLED", "HTTP_PROXY"} & set(os.environ)
        assert not {"http_proxy", "FORCE_COLOR", "COLUMNS"} & set(os.environ)
        assert not Path(".env").exists()
"""


@pytest.fixture
def programs(pytester, monkeypatch):
    """The only folder with programs, with one called openssl in it."""
    folder = pytester.mkdir("programs")
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("SKIPS_FAIL", raising=False)
    # No other folder of this machine counts.
    text = CONFTEST.read_text().replace('"/usr/', '"/nowhere/')
    pytester.makeconftest(text)
    add(folder, "openssl")
    return folder


@pytest.fixture(autouse=True)
def nothing_of_other_plugins(monkeypatch):
    """What pytest imports in the tests' own process is forgotten, and then there twice.

    So it runs in another, and there without the plugins that take long to import.
    """
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def add(folder: Path, program: str) -> None:
    (folder / program).write_text("")
    (folder / program).chmod(0o755)


@pytest.mark.parametrize("test", [MARKED, IN_A_FIXTURE], ids=["marked", "in a fixture"])
def test_a_missing_program_skips_with_one_line_that_says_how_to_get_it(pytester, programs, test):
    pytester.makepyfile(test)

    run = pytester.runpytest_subprocess("--strict-markers")

    run.assert_outcomes(skipped=1)
    run.stdout.fnmatch_lines(["skipped 1: needs wrk: apt-get install wrk"])


@pytest.mark.parametrize("test", [MARKED, IN_A_FIXTURE], ids=["marked", "in a fixture"])
def test_with_its_programs_a_test_runs(pytester, programs, test):
    add(programs, "wrk")
    pytester.makepyfile(test)

    pytester.runpytest_subprocess("--strict-markers").assert_outcomes(passed=1)


def test_in_the_gate_a_missing_program_fails(pytester, programs, monkeypatch):
    pytester.makepyfile(MARKED)
    # The variable is read once, when the tests start.
    monkeypatch.setenv("SKIPS_FAIL", "1")

    run = pytester.runpytest_subprocess("--strict-markers")

    assert run.parseoutcomes().get("passed", 0) == 0
    assert run.ret != 0


def test_missing_packages_of_node_are_skipped_with_the_command_that_gets_them(pytester, programs):
    pytester.makepyfile(OF_NODE)

    run = pytester.runpytest_subprocess()

    run.assert_outcomes(skipped=1)
    run.stdout.fnmatch_lines(["skipped 1: needs *: npm ci --prefix tests/nowhere"])


def test_the_settings_of_a_contributor_reach_no_test(pytester, monkeypatch):
    pytester.makeconftest(CONFTEST.read_text())
    pytester.path.joinpath(".env").write_text("EVENT_SERVICE_PORT=3999\n")
    monkeypatch.setenv("EVENT_SERVICE_PORT", "3999")
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "40")
    pytester.makepyfile(SETTINGS)

    pytester.runpytest_subprocess().assert_outcomes(passed=1)


def test_what_needs_a_program_or_is_marked_slow_is_not_in_the_quick_run(pytester, programs):
    add(programs, "wrk")
    pytester.makepyfile(test_marked=MARKED, test_fixture=IN_A_FIXTURE, test_plain=SETTINGS)

    pytester.runpytest_subprocess("-m", "not slow").assert_outcomes(passed=1, deselected=2)


@pytest.mark.parametrize(("environ", "rounds", "outcomes"), [("", 2, 1), ("1", 5, 2)])
def test_long_proofs_are_short_unless_asked_for(pytester, monkeypatch, environ, rounds, outcomes):
    monkeypatch.setenv("LONG", environ)
    pytester.makeconftest(CONFTEST.read_text())
    pytester.makepyfile(LONG.replace("ROUNDS", str(rounds)))

    pytester.runpytest_subprocess().assert_outcomes(passed=outcomes, deselected=2 - outcomes)


def test_the_tests_of_a_file_share_a_process(pytester):
    makefile = CONFTEST.with_name("Makefile").read_text()
    (options,) = re.findall(r"^PYTEST := pytest (.+)$", makefile, re.MULTILINE)
    options = options.replace("$(TEST_PROCESSES)", "2")
    files = [pytester.makepyfile(**{name: PROCESS}) for name in ("test_one", "test_two")]

    run = pytester.runpytest_subprocess("-p", "xdist", *options.split())

    run.assert_outcomes(passed=8)
    processes = [set(file.with_suffix(".ids").read_text().split()) for file in files]
    assert [len(ids) for ids in processes] == [1, 1]
    assert processes[0] != processes[1]
