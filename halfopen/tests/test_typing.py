import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import halfopen

API = Path(__file__).parent / "typing" / "api.py"


@pytest.mark.slow
def test_what_users_write_keeps_its_types_under_mypy(tmp_path):
    pytest.importorskip("mypy", reason="needs pip install mypy")

    checked = subprocess.run(
        [
            sys.executable,
            "-m",
            "mypy",
            "--strict",
            "--warn-unused-ignores",
            "--config-file=",
            f"--cache-dir={tmp_path}",
            str(API),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
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
