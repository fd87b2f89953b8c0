"""The documentation as a newcomer meets it: commands run, links lead somewhere, pages are true."""

import re
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent
DOCS = REPOSITORY / "docs"
PAGES = sorted([*DOCS.rglob("*.md"), REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "SECURITY.md"])
LINKED = sorted({*PAGES, *REPOSITORY.glob("*.md"), *REPOSITORY.glob("*/*.md")})
FENCE = re.compile(
    r"^```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
LINK = re.compile(r"\]\((?!https?://)([^)\s]+)\)")
# In a table a path is code that names a file of ours.
PATH = re.compile(
    r"`((?:\.github|benchmarks|deploy|halfopen|mock-upstream|service|tests)/[\w./-]+)`"
)


def fences(page: Path) -> list[re.Match[str]]:
    return list(FENCE.finditer(page.read_text()))


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_fence_says_its_language_and_commands_are_in_sh(page):
    for fence in fences(page):
        assert fence["language"] in {"sh", "json", "mermaid", "python", "text"}, fence["text"]


@pytest.mark.parametrize("page", LINKED, ids=name)
def test_every_link_leads_somewhere(page):
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            assert anchor in anchors(target), link


def anchors(page: Path) -> set[str]:
    """The ids that a page's headings get on GitHub."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings]
    return {heading.replace(" ", "-") for heading in plain}


def test_the_index_lists_every_page():
    listed = {path for path in LINK.findall((DOCS / "index.md").read_text()) if ".." not in path}
    pages = {page.name for page in DOCS.glob("*.md")} - {"index.md"}

    assert listed - {"adr/README.md"} == pages


def test_the_list_of_decisions_is_complete_and_each_has_all_its_parts():
    decisions = {page.name for page in (DOCS / "adr").glob("0*.md")}
    listed = set(LINK.findall((DOCS / "adr/README.md").read_text()))

    assert listed == decisions
    for decision in decisions:
        text = (DOCS / "adr" / decision).read_text()
        for part in ("Context", "Decision", "Consequences", "Alternatives"):
            assert f"**{part}.**" in text, decision


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_file_that_is_named_exists(page):
    for path in PATH.findall(page.read_text()):
        assert (REPOSITORY / path).exists(), path


def test_every_target_of_make_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        for target in re.findall(r"`(?:sudo )?make ([a-z-]+)", page.read_text()):
            assert target in targets, f"{name(page)}: make {target}"


def test_the_architecture_page_shows_the_layers_that_are_enforced():
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]
    layers = contracts["contracts"][0]["layers"]
    shown = [
        fence["text"].splitlines()
        for fence in fences(DOCS / "architecture.md")
        if fence["language"] == "text"
    ]

    assert layers in shown


def test_the_architecture_page_describes_every_module():
    package = REPOSITORY / "service/src/event_service"
    rooms = {f"{path.name}/" if path.is_dir() else path.name for path in package.iterdir()}
    rooms -= {"__init__.py", "__main__.py", "__pycache__/", "py.typed"}
    text = (DOCS / "architecture.md").read_text()
    described = re.findall(r"^\| ((?:`[\w./]+`(?:, )?)+) \|", text, re.MULTILINE)

    assert set(re.findall(r"`([\w./]+)`", " ".join(described))) == rooms


@pytest.mark.parametrize(
    ("page", "function"), [("api", "api_page"), ("configuration", "configuration_page")]
)
def test_a_generated_page_matches_the_code(page, function, monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    generate = import_module("docs.generate")

    assert (DOCS / f"{page}.md").read_text() == getattr(generate, function)(), "run `make docs`"


def test_the_run_book_of_the_service_is_that_of_the_documents(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    generate = import_module("docs.generate")

    assert generate.RUNBOOK.read_text() == generate.runbook_page(), "run `make docs`"


def test_every_setting_has_a_meaning_and_a_reason_to_turn_it(monkeypatch):
    monkeypatch.syspath_prepend(REPOSITORY)
    page = import_module("docs.generate").configuration_page()

    rows = [line for line in page.splitlines() if line.startswith("| `EVENT_SERVICE_")]
    assert len(rows) > 20
    assert not [row for row in rows if "|  |" in row]


def test_one_page_is_the_reference_of_the_settings():
    rows = {
        page.name
        for page in [REPOSITORY / "README.md", *DOCS.glob("*.md")]
        if re.search(r"^\| `(EVENT_SERVICE_)?PORT`", page.read_text(), re.MULTILINE)
    }

    assert rows == {"configuration.md"}


def test_every_test_that_a_page_names_exists():
    files = [*REPOSITORY.glob("tests/*.py"), *REPOSITORY.glob("*/tests/**/*.py")]
    tests = set(re.findall(r"def (test_\w+)", "".join(file.read_text() for file in files)))
    named = set(re.findall(r"`(test_\w+)`", "".join(page.read_text() for page in PAGES)))

    assert len(named) > 50
    assert named <= tests
