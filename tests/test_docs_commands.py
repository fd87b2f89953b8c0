"""Every command in README, CONTRIBUTING and docs works as printed, and prints what is shown.

A page is one session of a shell, in a fresh copy of the repository, with nothing of ours on PATH
that the page does not put there; beside a running `make dev` if the page names its addresses. `…`
in what is shown stands for anything. A comment `<!-- not run: why -->` above a block keeps it from
being run.
"""

import os
import re
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .processes import START_TIMEOUT, free_port

REPOSITORY = Path(__file__).parent.parent
PAGES = sorted(
    [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/**/*.md"),
        REPOSITORY / "service/README.md",
        REPOSITORY / "benchmarks/README.md",
    ]
)
BLOCK = re.compile(
    r"^(?P<reason><!-- not run: .+ -->\n)?```(?P<language>sh|console)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
# These run until they are told to end.
SERVER = re.compile(r"(\S*/)?(event-service (serve|dev)|mock-upstream)\b.*")
PROGRAMS = ("curl", "openssl")
ADDRESS = re.compile(r"(127\.0\.0\.1|localhost):(3000|4010)")
NOT_OURS = shutil.ignore_patterns(
    ".git", ".venv", ".env", "node_modules", "__pycache__", ".*_cache", ".hypothesis", "htmlcov",
    ".coverage*", "dist", "mutants", "results",
)  # fmt: skip
RUN_SERVER = """
run_server() {
    setsid "$@" >"$TMPDIR/server" 2>&1 &
    until grep -qE "started|listen" "$TMPDIR/server"; do
        kill -0 $! || { cat "$TMPDIR/server"; return 1; }
        sleep 0.05
    done
    kill -TERM $!
    wait $!
    cat "$TMPDIR/server"
}
"""
# What differs each time: ids, seconds that something took, seconds that are left.
VARIABLE = [
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "ID"),
    (re.compile(r"\d+\.\d+ s"), "SECONDS"),
    (re.compile(r"(?<=retry-after: )\d+|(?<= in )\d+(?= s)"), "WHOLE SECONDS"),
]
AN_ID, ANOTHER_ID = "01a20339-fd4a-7614-b5f4-ab0a5cc1baf8", "02b31222-fd66-721e-9673-3b34596250fa"


class Step(NamedTuple):
    command: str
    shown: str


def steps(page: Path) -> Iterator[Step]:
    for block in BLOCK.finditer(page.read_text()):
        text = block["text"].replace("\\\n", "")
        if block["reason"]:
            continue
        if block["language"] == "sh":
            yield from (Step(line, "") for line in text.splitlines() if line.strip())
            continue
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            yield Step(command, shown.strip())


def cases() -> Iterator[object]:
    for page in PAGES:
        commands = " ".join(step.command for step in steps(page))
        if commands:
            needed = [program for program in PROGRAMS if re.search(rf"\b{program}\b", commands)]
            name = str(page.relative_to(REPOSITORY))
            yield pytest.param(page, id=name, marks=pytest.mark.needs(*needed))


class Session(NamedTuple):
    folder: Path
    environ: dict[str, str]
    service: int
    upstream: int

    def script(self, page_steps: list[Step]) -> str:
        lines = ["set -euo pipefail", RUN_SERVER]
        for number, step in enumerate(page_steps):
            command = step.command
            if SERVER.fullmatch(command):
                command = f"run_server {command}"
            lines += [command, f"echo; echo @@{number}"]
        # The pages speak of the default ports.
        ports = {"3000": self.service, "4010": self.upstream}
        return ADDRESS.sub(lambda found: f"{found[1]}:{ports[found[2]]}", "\n".join(lines))


@pytest.fixture
def session(tmp_path: Path, page: Path) -> Iterator[Session]:
    folder = tmp_path / "event-service"
    shutil.copytree(REPOSITORY, folder, ignore=NOT_OURS)
    (folder / ".venv").symlink_to(REPOSITORY / ".venv")
    # Older than what is installed, so that make installs nothing of this copy.
    for file in (*folder.glob("requirements/*"), *folder.glob("*/pyproject.toml")):
        os.utime(file, (0, 0))
    # As on a terminal, where curl does not say how far it is.
    (tmp_path / ".curlrc").write_text("silent\nshow-error\n")
    service, upstream = free_port(), free_port()
    ours = str(REPOSITORY / ".venv/bin")
    environ = {
        "HOME": str(tmp_path),
        "PATH": os.pathsep.join(p for p in os.environ["PATH"].split(os.pathsep) if p != ours),
        "TMPDIR": str(tmp_path),
        **{k: v for k, v in os.environ.items() if k.startswith(("COVERAGE_", "LANG", "LC_"))},
    }
    elsewhere = {**environ, "EVENT_SERVICE_PORT": str(free_port())}
    if not any(ADDRESS.search(step.command) for step in steps(page)):
        yield Session(folder, elsewhere, service, upstream)
        return
    dev = subprocess.Popen(
        ["make", "dev"],
        cwd=folder,
        env={
            **environ,
            "EVENT_SERVICE_PORT": str(service),
            "EVENT_SERVICE_UPSTREAM_URL": f"http://127.0.0.1:{upstream}",
        },
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{service}/livez", dev)
        # Whatever server a page starts itself has a port of its own.
        yield Session(folder, elsewhere, service, upstream)
    finally:
        os.killpg(dev.pid, signal.SIGTERM)
        dev.wait(30)


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    give_up = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < give_up:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError(f"make dev does not answer at {url}")


@pytest.mark.parametrize("page", list(cases()))
def test_every_command_works_as_printed(page: Path, session: Session):
    page_steps = list(steps(page))

    done = subprocess.run(
        ["bash", "-c", session.script(page_steps)],
        cwd=session.folder,
        env=session.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
        check=False,
    )

    assert done.returncode == 0, done.stdout
    printed = re.split(r"\n@@\d+\n", done.stdout)
    assert len(printed) == len(page_steps) + 1
    for step, output in zip(page_steps, printed, strict=False):
        if step.shown:
            assert agree(step.shown, output), f"{step.command}\n{output}"


def agree(shown: str, printed: str) -> bool:
    """Whether a page shows what was printed, whichever ids and times it has this time."""
    pattern = re.escape(constant(shown)).replace("…", ".*")
    return bool(re.fullmatch(pattern, constant(printed), re.DOTALL))


def constant(text: str) -> str:
    for variable, name in VARIABLE:
        text = variable.sub(name, text)
    return text.replace("\r", "").strip()


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        (f'{{"id":"{AN_ID}"}}', f'{{"id":"{ANOTHER_ID}"}}', True),
        (f'{{"id":"{AN_ID}"}}', '{"id":"1"}', False),
        ("[1,…]", "[1,2,3]", True),
        ("[1,…]", "[2,3]", False),
        ("[] 0.507346 s", "[] 1.2 s", True),
        ("[] 0.507346 s", "[] s", False),
        ("retry-after: 10", "retry-after: 9", True),
        ("the next try is in 10 s.", "the next try is in 9 s.", True),
        ("200 200 503", "200 503 503", False),
    ],
)
def test_shown_output_is_compared_except_ids_and_times(shown: str, printed: str, *, same: bool):
    assert agree(shown, printed) is same
