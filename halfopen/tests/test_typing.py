import json
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import halfopen

API = Path(__file__).parent / "typing" / "api.py"
README = Path(__file__).parents[1] / "README.md"
# The libraries of some examples have no types, or are not installed.
NOT_OURS = ["--ignore-missing-imports", "--disable-error-code=untyped-decorator"]


@pytest.mark.slow
def test_what_users_write_keeps_its_types_under_mypy(tmp_path):
    run_mypy(tmp_path, "--warn-unused-ignores", str(API))


@pytest.mark.slow
def test_the_examples_keep_their_types_under_mypy(tmp_path):
    examples = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    for number, example in enumerate(examples):
        (tmp_path / f"example_{number}.py").write_text(example, "utf-8")

    run_mypy(tmp_path, *NOT_OURS, *[str(each) for each in tmp_path.glob("example_*.py")])


def run_mypy(folder, *arguments):
    pytest.importorskip("mypy", reason="needs pip install mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file="]

    checked = subprocess.run(
        [*command, f"--cache-dir={folder}", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.slow
def test_what_users_write_keeps_its_types_under_pyright(tmp_path):
    # basedpyright, because it brings all it needs where pyright downloads it when it is run.
    pyright = shutil.which("basedpyright", path=sysconfig.get_path("scripts"))
    if pyright is None:
        pytest.skip("needs pip install basedpyright")
    shutil.copy(API, tmp_path)
    config = {
        "include": ["api.py"],
        "typeCheckingMode": "strict",
        "enableTypeIgnoreComments": True,
        "extraPaths": [str(Path(halfopen.__file__).parents[1])],
        "pythonVersion": "3.11",
    }
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(config))

    checked = subprocess.run(
        [pyright, "--project", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr
