"""What no linter of workflows knows: what ours promise. `make lint` runs actionlint and zizmor."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parent.parent
CONFTEST, GATE = REPOSITORY / "conftest.py", REPOSITORY / ".ci/run"
WORKFLOWS = sorted((REPOSITORY / ".github/workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return yaml.safe_load(request.param.read_text())


def test_every_action_is_pinned_by_commit_and_says_its_version():
    uses = [
        line.split("uses:")[1].strip()
        for path in WORKFLOWS
        for line in path.read_text().splitlines()
        if "uses:" in line and "uses: ./" not in line
    ]

    assert len(uses) > 10
    for use in uses:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use


def test_one_action_has_one_version_everywhere():
    pins = {
        pin
        for path in WORKFLOWS
        for pin in re.findall(r"uses: ([\w./-]+@[0-9a-f]{40})", path.read_text())
    }

    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


def test_a_job_may_do_what_it_needs_for_as_long_as_it_needs(workflow):
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert job["permissions"]
        assert "uses" in job or job["timeout-minutes"] <= 60


def test_only_a_release_may_write_and_only_what_it_must():
    written = {
        (path.stem, job, name)
        for path in WORKFLOWS
        for job, description in yaml.safe_load(path.read_text())["jobs"].items()
        for name, access in description["permissions"].items()
        if access != "read"
    }

    assert written == {("release", "publish", "id-token"), ("release", "notes", "contents")}


def test_no_checkout_leaves_its_token_behind(workflow):
    steps = [step for job in workflow["jobs"].values() for step in job.get("steps", [])]

    for step in steps:
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_the_gate_runs_on_every_python_that_the_distributions_say_they_support():
    project = tomllib.loads((REPOSITORY / "service/pyproject.toml").read_text())["project"]
    supported = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    gate = yaml.safe_load((REPOSITORY / ".github/workflows/ci.yml").read_text())["jobs"]["check"]

    assert gate["strategy"]["matrix"]["python"] == supported
    assert ".ci/run" in [step.get("run") for step in gate["steps"]]


def test_nothing_is_released_that_did_not_pass_the_gate():
    jobs = yaml.safe_load((REPOSITORY / ".github/workflows/release.yml").read_text())["jobs"]

    assert jobs["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert set(jobs["publish"]["needs"]) == {"ci", "version"}
    assert jobs["notes"]["needs"] == "publish"
    assert jobs["publish"]["environment"] == "release"
    assert "password" not in str(jobs["publish"]["steps"])


def test_every_command_of_make_in_a_workflow_is_a_target():
    targets = re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    used = {name for path in WORKFLOWS for name in re.findall(r"make ([a-z-]+)", path.read_text())}

    assert used
    assert used <= set(targets)


def test_the_commit_hook_runs_what_make_lint_runs_and_pins_nothing_of_its_own():
    config = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())
    (repo,) = config["repos"]
    (hook,) = repo["hooks"]

    assert repo["repo"] == "local"
    assert (hook["entry"], hook["language"], hook["pass_filenames"]) == (
        "make lint",
        "system",
        False,
    )


def test_the_gate_installs_every_program_that_some_test_needs():
    folders = ("tests", "halfopen/tests", "mock-upstream/tests", "service/tests")
    asked = " ".join(
        arguments
        for folder in folders
        for path in (REPOSITORY / folder).rglob("*.py")
        if path.name != "test_conftest.py"
        for arguments in re.findall(r"\bneeds\(([^)]*)\)", path.read_text())
    )
    programs = set(re.findall(r'"([\w-]+)"', asked)) | {"curl", "openssl"}
    table = re.search(r"^PACKAGES = (\{.*?^\})", CONFTEST.read_text(), re.MULTILINE | re.DOTALL)
    assert table
    packages = ast.literal_eval(table[1])
    installed = " ".join(re.findall(r"packages\+?=\(([^)]*)\)", GATE.read_text()))

    assert len(programs) > 8
    everywhere = {"util-linux"}  # part of every Debian
    wanted = {packages.get(program, program) for program in programs} - everywhere
    assert wanted <= set(installed.split())
