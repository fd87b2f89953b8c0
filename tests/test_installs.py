"""What is installed is what is pinned, whatever is released later and whichever pip installs it."""

import base64
import hashlib
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.markers import Marker

REPOSITORY = Path(__file__).parent.parent
PIN = re.compile(
    r"^(?P<name>[\w.-]+)==(?P<version>[^\s;]+)(?: ; (?P<marker>.+?))? \\$", re.MULTILINE
)
LATER = "9999"
# A package of the kind that an old pip looks up again for the extra, and then finds too new.
ASKS_FOR_AN_EXTRA = "asks-for-an-extra"
# Here something is installed; elsewhere nothing may be.
INSTALLERS = {"Makefile", "deploy/Dockerfile", ".github/workflows/ci.yml"}
FROM_PINS = ("--no-deps", "--only-binary=:all:", "--require-hashes")


class Pin(NamedTuple):
    name: str
    version: str


def test_every_install_takes_pins_or_what_is_in_a_folder():
    found = set()
    for path in ("Makefile", ".ci/run", *files("deploy", "*"), *files(".github", "**/*.yml")):
        for install in installs(path):
            found.add(path)
            pinned = all(option in install for option in FROM_PINS) and "-r " in install
            assert pinned or {"--no-index", "--no-deps"} <= set(install.split()), install

    assert found == INSTALLERS


def files(folder: str, pattern: str) -> list[str]:
    found = [path for path in (REPOSITORY / folder).glob(pattern) if path.is_file()]
    return [str(path.relative_to(REPOSITORY)) for path in found if path.suffix != ".py"]


def installs(path: str) -> list[str]:
    """The commands of pip that install something: continued lines joined, options filled in."""
    text = (REPOSITORY / path).read_text().replace("\\\n", " ")
    text = text.replace("$(PINNED)", " ".join(FROM_PINS)).replace("$(PIP)", "pip")
    commands = re.split(r"\n|&&|\|\|", text)
    return [each for each in commands if re.search(r"\bpip\b.* (install|wheel) ", each)]


def test_the_checks_and_the_benchmark_install_in_the_same_way():
    for path in ("deploy/check_wheels.py", "benchmarks/contenders.py"):
        text = (REPOSITORY / path).read_text()
        (options,) = re.findall(r"^PINNED = [\[(](.+)[\])]$", text, re.MULTILINE)
        assert tuple(re.findall(r'"(.+?)"', options)) == FROM_PINS
        found = re.findall(r'^.*"(?:install|download)".*$', text, re.MULTILINE)
        assert len(found) >= 2
        for install in found:
            ours = '"make"' in install
            assert ours or "*PINNED" in install or "*source" in install, install
    assert 'source = ["--no-index"' in (REPOSITORY / "deploy/check_wheels.py").read_text()


@pytest.mark.parametrize(
    "lock", [*REPOSITORY.glob("*/*/package-lock.json"), *REPOSITORY.glob("*/*/*/package-lock.json")]
)
def test_packages_of_node_are_pinned_by_hash_and_name_no_registry(lock):
    text = lock.read_text()

    assert text.count('"integrity": "sha') > 10
    assert '"resolved"' not in text


def test_no_two_files_pin_the_same_package_differently():
    pinned: dict[str, set[str]] = {}
    for path in REPOSITORY.glob("requirements/*.txt"):
        for pin in pins(path.read_text()):
            pinned.setdefault(pin.name, set()).add(pin.version)

    assert len(pinned) > 100
    assert {name: versions for name, versions in pinned.items() if len(versions) > 1} == {}


@pytest.mark.long
def test_later_releases_change_nothing_with_the_pip_that_python_brings(tmp_path):
    index, here = tmp_path / "index", tmp_path / "here"
    recipe = recipe_of(".venv/.dev")
    files = sorted(set(re.findall(r"-r (requirements/\S+)", recipe)))
    wanted = {pin for path in files for pin in pins((REPOSITORY / path).read_text())}
    wanted.add(Pin(ASKS_FOR_AN_EXTRA, "1"))
    hashes = {pin: publish(index, pin) for pin in wanted}
    for path in files:
        own = pins((REPOSITORY / path).read_text())
        if path.endswith("dev.txt"):
            own.append(Pin(ASKS_FOR_AN_EXTRA, "1"))
        (here / path).parent.mkdir(parents=True, exist_ok=True)
        (here / path).write_text(
            "".join(f"{p.name}=={p.version} --hash=sha256:{hashes[p]}\n" for p in own)
        )
    subprocess.run([sys.executable, "-m", "venv", here / ".venv"], check=True)

    installed = subprocess.run(
        ["sh", "-ec", recipe],
        cwd=here,
        env=only_this_index(index),
        capture_output=True,
        text=True,
        check=False,
    )

    assert installed.returncode == 0, installed.stdout + installed.stderr
    assert {
        pin for pin in found_in(here / ".venv") if pin.name in {w.name for w in wanted}
    } == wanted


def recipe_of(stamp: str) -> str:
    """The commands of make that install pins into an environment, and those that check it."""
    dry = subprocess.run(
        ["make", "--always-make", "--dry-run", stamp],
        cwd=REPOSITORY,
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [
        line
        for line in dry.stdout.splitlines()
        if "-r requirements/" in line or line.endswith(" check")
    ]
    assert len(lines) >= 5
    return "\n".join(lines)


def pins(text: str) -> list[Pin]:
    """What such a file pins for this Python and this platform."""
    return [
        Pin(match["name"], match["version"])
        for match in PIN.finditer(text)
        if not match["marker"] or Marker(match["marker"]).evaluate()
    ]


def publish(index: Path, pin: Pin) -> str:
    """Two wheels of a package, empty but for its real metadata: the pinned release and a later
    one. The hash of the first."""
    folder = index / pin.name
    folder.mkdir(parents=True)
    wheels = [wheel(folder, pin.name, version) for version in (pin.version, LATER)]
    links = "".join(f'<a href="{each.name}">{each.name}</a>' for each in wheels)
    (folder / "index.html").write_text(f"<!doctype html><html><body>{links}</body></html>")
    return hashlib.sha256(wheels[0].read_bytes()).hexdigest()


def wheel(folder: Path, name: str, version: str) -> Path:
    if name == ASKS_FOR_AN_EXTRA:
        needs: Sequence[str] = ["coverage[toml]>=7"]
        extras: Sequence[str] = []
    else:
        needs = metadata.requires(name) or []
        extras = metadata.metadata(name).get_all("Provides-Extra", [])
    written = name.replace("-", "_")
    info = f"{written}-{version}.dist-info"
    files = {
        f"{info}/METADATA": "\n".join(
            [
                "Metadata-Version: 2.1",
                f"Name: {name}",
                f"Version: {version}",
                *[f"Requires-Dist: {each}" for each in needs],
                *[f"Provides-Extra: {each}" for each in extras],
                "",
            ]
        ),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    path = folder / f"{written}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        record = [f"{file},sha256={digest(text)},{len(text)}" for file, text in files.items()]
        archive.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,", ""]))
    return path


def digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def only_this_index(index: Path) -> dict[str, str]:
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith("PIP_")},
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": index.as_uri(),
        "PIP_NO_CACHE_DIR": "1",
        "PIP_NO_COMPILE": "1",
    }


def found_in(venv: Path) -> set[Pin]:
    (packages,) = venv.glob("lib/python*/site-packages")
    return {
        Pin(each.metadata["Name"], each.version)
        for each in metadata.distributions(path=[str(packages)])
    }
