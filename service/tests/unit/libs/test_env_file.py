import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from event_service.libs.env_file import env_line, read_env_file


def written(folder: Path, content: str | bytes) -> Path:
    path = folder / ".env"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path):
    assert read_env_file(tmp_path / ".env") == ({}, [], [])


def test_what_dotenv_files_may_hold_is_read(tmp_path: Path):
    file = read_env_file(
        written(
            tmp_path,
            "# a comment\n\nexport A=1\r\nB='two words' # why\nC=\"x\\ny\"\nD=${A}${B}\nE=\n",
        )
    )

    assert file.values == {"A": "1", "B": "two words", "C": "x\ny", "D": "1two words", "E": ""}
    assert file.faults == file.notes == []


def test_a_byte_order_mark_is_skipped_and_told(tmp_path: Path):
    file = read_env_file(written(tmp_path, b"\xef\xbb\xbfA=1\n"))

    assert (file.values, file.faults) == ({"A": "1"}, [])
    (note,) = file.notes
    assert "byte order mark" in note


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("A=1\n".encode("utf-16"), "is UTF-16; save it as UTF-8"),
        ("A=1\n".encode("utf-16-be"), "NUL bytes"),
        ("A=1\nB=café\n".encode("latin-1"), "is not UTF-8 text (line 2)"),
        (bytes(range(256)), "is not UTF-8 text"),
        (b"A=1\0\n", "NUL bytes"),
        (b"\x7fELF\0\0", "NUL bytes"),
    ],
)
def test_what_is_not_text_is_one_fault(tmp_path: Path, content: bytes, told: str):
    file = read_env_file(written(tmp_path, content))

    assert (file.values, file.notes) == ({}, [])
    (fault,) = file.faults
    assert told in fault
    assert str(tmp_path / ".env") in fault


def test_a_folder_is_one_fault(tmp_path: Path):
    assert read_env_file(tmp_path).faults == [f"{tmp_path} is a folder, not a file"]


def test_an_unreadable_file_is_one_fault(tmp_path: Path):
    loop = tmp_path / ".env"
    loop.symlink_to(loop)

    (fault,) = read_env_file(loop).faults

    assert fault.startswith(f"{loop} cannot be read: ")


def test_a_file_that_is_not_ours_to_read_is_one_fault(tmp_path: Path):
    path = written(tmp_path, "A=1\n")
    path.chmod(0)
    if os.geteuid() != 0:
        assert "cannot be read: Permission denied" in read_env_file(path).faults[0]
        return
    # Root may read all files; somebody else tries.
    tmp_path.chmod(stat.S_IRWXU | stat.S_IRWXO)
    program = """
import os
import pathlib
from event_service.libs.env_file import read_env_file

os.setuid(65534)
print(read_env_file(pathlib.Path(".env")).faults)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert run.stdout == "['.env cannot be read: Permission denied']\n"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("PORT 3999", "PORT is not followed by '='"),
        ("PORT: 3999", "PORT is not followed by '='"),
        ("export TOKEN secret", "TOKEN is not followed by '='"),
        ("TOKEN='secret", "the quote that opens the value of TOKEN is not closed"),
        ('TOKEN="secret', "the quote that opens the value of TOKEN is not closed"),
        ("TOKEN='secret' more", "the quote that opens the value of TOKEN is not closed, or more"),
        ("TOKEN", "TOKEN has no '='"),
        ("=secret", "must be NAME=value"),
        ('{"TOKEN":"secret"}', "must be NAME=value"),
        ("secret-word", "must be NAME=value"),
    ],
)
def test_no_line_is_passed_over_in_silence(tmp_path: Path, caplog, line: str, told: str):
    file = read_env_file(written(tmp_path, f"A=1\n\n{line}\nB=2\n"))

    (fault,) = file.faults
    assert f"line 3: {told}" in fault
    assert "secret" not in fault
    assert file.values["A"] == "1"
    assert caplog.text == ""


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")))
def test_a_written_line_is_read_as_the_same_value(tmp_path_factory, value: str):
    line = env_line("A", value)
    file = read_env_file(written(tmp_path_factory.getbasetemp(), line + "\n"))

    assert file.faults == []
    assert file.values == ({} if "${" in value else {"A": value})
