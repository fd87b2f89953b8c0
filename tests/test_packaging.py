"""What `make wheels` builds: whether somebody without this repository gets all they need."""

import email.message
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Iterator
from email.parser import BytesParser
from pathlib import Path
from typing import NamedTuple

import pytest

REPOSITORY = Path(__file__).parent.parent
FOLDERS = {"halfopen": "halfopen", "mock-upstream": "mock_upstream", "service": "event_service"}


class Wheel(NamedTuple):
    folder: Path
    package: str
    names: set[str]
    metadata: email.message.Message
    entry_points: str
    sdist: set[str]


@pytest.fixture(scope="module", params=FOLDERS)
def wheel(request, tmp_path_factory) -> Iterator[Wheel]:
    folder = REPOSITORY / request.param
    target = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", target],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (sdist,) = target.glob("*.tar.gz")
    with tarfile.open(sdist) as tar:
        in_sdist = {name.partition("/")[2] for name in tar.getnames()}
    (built,) = target.glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        names = set(archive.namelist())
        (metadata,) = [name for name in names if name.endswith(".dist-info/METADATA")]
        entry_points = metadata.replace("METADATA", "entry_points.txt")
        yield Wheel(
            folder,
            FOLDERS[request.param],
            names,
            BytesParser().parsebytes(archive.read(metadata)),
            archive.read(entry_points).decode() if entry_points in names else "",
            in_sdist,
        )


def test_a_wheel_holds_every_file_of_its_package_and_nothing_else(wheel):
    source = wheel.folder / "src"
    ours = {
        str(path.relative_to(source))
        for path in (source / wheel.package).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    packed = {name for name in wheel.names if ".dist-info/" not in name}

    assert packed == ours
    assert f"{wheel.package}/py.typed" in packed


def test_a_source_distribution_can_be_built_and_tested(wheel):
    assert {"LICENSE", "README.md", "pyproject.toml", "tests/conftest.py"} <= wheel.sdist
    assert f"src/{wheel.package}/py.typed" in wheel.sdist


def test_a_wheel_says_what_it_is(wheel):
    said = wheel.metadata

    assert said["License-Expression"] == "MIT"
    assert said["License-File"] == "LICENSE"
    assert any(name.endswith("/licenses/LICENSE") for name in wheel.names)
    assert said["Requires-Python"] == ">=3.11"
    assert "Typing :: Typed" in said.get_all("Classifier", [])
    assert said["Summary"]
    assert len(said.get_payload().strip()) > 500, "the README is what the package index shows"


def test_every_wheel_has_the_same_licence_and_version_and_supports_the_same_python(wheel):
    project = tomllib.loads((wheel.folder / "pyproject.toml").read_text())["project"]
    service = tomllib.loads((REPOSITORY / "service/pyproject.toml").read_text())["project"]

    assert (wheel.folder / "LICENSE").read_text() == (REPOSITORY / "LICENSE").read_text()
    assert wheel.metadata["Version"] == service["version"]
    assert pythons(project) == pythons(service)


def pythons(project: dict[str, list[str]]) -> list[str]:
    return [each for each in project["classifiers"] if "Language :: Python :: 3" in each]


def test_the_service_brings_halfopen_and_for_development_the_mock_at_the_same_version():
    project = tomllib.loads((REPOSITORY / "service/pyproject.toml").read_text())["project"]
    mock = f"event-mock-upstream=={project['version']}"

    assert f"halfopen=={project['version']}" in project["dependencies"]
    assert mock in project["optional-dependencies"]["dev"]
    assert mock not in project["dependencies"]


def test_each_program_is_a_command(wheel):
    commands = {
        "halfopen": "",
        "mock_upstream": "mock-upstream = mock_upstream.cli:main",
        "event_service": "event-service = event_service.cli:main",
    }
    command = commands[wheel.package]

    assert (command in wheel.entry_points.splitlines()) if command else not wheel.entry_points


def test_the_extras_are_these_and_halfopen_alone_depends_on_nothing(wheel):
    extras = {
        "halfopen": ["prometheus", "redis"],
        "mock_upstream": [],
        "event_service": ["cluster", "dev", "otel", "postgres"],
    }
    always = [
        need for need in wheel.metadata.get_all("Requires-Dist", []) if "extra ==" not in need
    ]

    assert wheel.metadata.get_all("Provides-Extra", []) == extras[wheel.package]
    assert bool(always) == (wheel.package != "halfopen")
