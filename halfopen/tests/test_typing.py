import subprocess
import sys
from pathlib import Path

import pytest

API = Path(__file__).parent / "typing" / "api.py"


def test_what_users_write_keeps_its_types(tmp_path):
    pytest.importorskip("mypy")

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
