"""The dashboard and the alerts are made for the metrics that the service really has."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from event_service.telemetry.cells import Cells
from event_service.telemetry.exposition import FAMILIES, HISTOGRAM
from event_service.telemetry.metrics import Metrics
from halfopen import CircuitBreaker

ROOT = Path(__file__).parent.parent
PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/dashboards/event-service.json"
RUNBOOK = ROOT / "docs/operations.md"
ASSETS = ROOT / "service/src/event_service/dashboard/assets"
DOCKERFILE = ROOT / "deploy/Dockerfile"

# Prometheus makes these itself, or adds them to every series.
ITS_OWN_METRICS = {"up"}
ITS_OWN_LABELS = {"job", "instance"}

promtool = pytest.mark.needs("promtool")


def run(*command: str, stdin: str = "") -> None:
    done = subprocess.run(
        ["promtool", *command],
        cwd=PROMETHEUS,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def exposed() -> str:
    """The metrics of a service that has seen one of everything."""
    cells = Cells()
    metrics = Metrics(cells, version="1")
    metrics.watch(CircuitBreaker("addEvent"))
    for name, family in FAMILIES.items():
        size = HISTOGRAM if family.kind is HistogramMetricFamily else 1
        cells.claim(name, tuple("closed" for _ in family.labels), size)
    return metrics.expose("")[0].decode()


def labels_by_metric() -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(exposed()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


def alerts() -> list[dict]:
    rules = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())
    return [rule for group in rules["groups"] for rule in group["rules"]]


def panels() -> list[dict]:
    return json.loads(DASHBOARD.read_text())["panels"]


def dashboard_queries() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in panels() for target in panel.get("targets", ())]
    queries += [each["expr"] for each in dashboard["annotations"]["list"]]
    values = {"$job": "event-service", "$__rate_interval": "1m"}
    for variable, value in values.items():
        queries = [query.replace(variable, value) for query in queries]
    return queries


QUERIES = [alert["expr"] for alert in alerts()] + dashboard_queries()


def selectors(query: str) -> list[tuple[str, set[str]]]:
    """The metrics that a query names, each with the labels that it selects by."""
    found = [
        (name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers)))
        for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", query)
    ]
    assert found, f"no metric in {query}"
    return found


@pytest.mark.parametrize("query", QUERIES)
def test_every_metric_and_label_of_a_query_exists(query):
    known = labels_by_metric()
    for name, labels in selectors(query):
        if name not in ITS_OWN_METRICS:
            assert name in known
            assert labels <= known[name] | ITS_OWN_LABELS


def test_the_dashboard_shows_every_metric_of_the_service():
    asked = {name for query in dashboard_queries() for name, _ in selectors(query)}
    own = {
        family.name
        for family in text_string_to_metric_families(exposed())
        if not family.name.startswith(("python_", "process_", "event_service_"))
    }
    shown = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked}
    assert own - shown == set()


def test_the_panels_of_the_dashboard_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not taken & cells, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    identities = [panel["id"] for panel in panels()]
    assert len(set(identities)) == len(identities)


def run_book_sections() -> dict[str, str]:
    """The text of each section of the run-book, by its anchor."""
    _, run_book = RUNBOOK.read_text().split("\n## Run-book\n")
    parts = [part.partition("\n") for part in run_book.split("\n### ")[1:]]
    return {
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-"): text for title, _, text in parts
    }


def test_every_alert_leads_to_its_page_of_the_run_book():
    anchors = run_book_sections()
    for alert in alerts():
        page, _, anchor = alert["annotations"]["runbook_url"].partition("#")
        assert page == "{{ $externalLabels.runbook_url }}"
        assert anchor in anchors, alert["alert"]
        assert f"`{alert['alert']}`" in anchors[anchor]


def test_every_section_of_the_run_book_says_what_is_seen_what_it_means_and_what_to_do():
    for anchor, text in run_book_sections().items():
        seen, means, step = (text.find(each) for each in ("*Seen:* ", "*It means:* ", "\n1. "))
        assert 0 <= seen < means < step, anchor


def test_every_sentence_of_the_dashboard_leads_to_its_page_of_the_run_book():
    scripts = "".join((ASSETS / name).read_text() for name in ("concerns.js", "sentence.js"))
    named = set(re.findall(r'"([a-z]+(?:-[a-z]+){2,})"', scripts))
    assert len(named) > 3
    assert named <= run_book_sections().keys()


def banner_table() -> dict[str, str]:
    """The section of each sentence in the run-book's table."""
    rows = re.findall(
        r"^\| (\*.+\*.*) \| \[[^]]+\]\(#([\w-]+)\).* \|$", RUNBOOK.read_text(), re.MULTILINE
    )
    return {
        sentence: anchor for said, anchor in rows for sentence in re.findall(r"\*(.+?)\*", said)
    }


def concern_functions() -> list[tuple[list[str], set[str]]]:
    """The sentences of each kind of concern, as patterns, with the sections that they lead to."""
    script = (ASSETS / "concerns.js").read_text().replace("\u2019", "'")
    script = script.replace("TOO_MUCH)", '"more-requests-than-it-can-take")')
    found = []
    for function in script.split("\nfunction ")[1:]:
        texts = re.findall(r"`([^`]+)`", function)
        texts += re.findall(r'"([a-z]+(?: [a-z:]+){2,})"', re.sub(r"`[^`]+`", "", function))
        patterns = [".+".join(map(re.escape, re.split(r"\$\{.*?\}", text))) for text in texts]
        if patterns:
            found.append((patterns, set(re.findall(r'"([a-z]+(?:-[a-z]+)+)"', function))))
    return found


def test_every_sentence_of_the_banner_is_in_the_run_books_table_with_its_section():
    table = banner_table()
    assert set(table.values()) <= run_book_sections().keys()
    sentences = [
        (pattern, sections) for patterns, sections in concern_functions() for pattern in patterns
    ]
    assert len(sentences) >= 11
    for pattern, sections in sentences:
        assert any(
            re.fullmatch(pattern, said) and section in sections for said, section in table.items()
        ), pattern


def test_every_alert_tells_the_instance():
    """One that aggregates over instances would not say where to look."""
    for alert in alerts():
        for kept in re.findall(r"\b(?:sum|max|min|avg)\b\s*(?:by\s*\(([^)]*)\))?", alert["expr"]):
            assert "instance" in kept, alert["alert"]


def test_every_alert_is_seen_to_fire():
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    fired = {
        case["alertname"]
        for test in tests
        for case in test["alert_rule_test"]
        if case["exp_alerts"]
    }
    assert {alert["alert"] for alert in alerts()} == fired


def test_the_documentation_names_every_metric():
    text = RUNBOOK.read_text()
    for name in labels_by_metric():
        base = re.sub(r"_(bucket|count|sum)$", "", name)
        assert f"`{base}`" in text or base.startswith("process_")


@promtool
def test_promtool_finds_the_configuration_right():
    run("check", "config", "--syntax-only", "prometheus.yml")
    run("check", "rules", "alerts.yml")


@promtool
def test_the_alerts_fire_when_they_should_and_not_else():
    run("test", "rules", "alerts_test.yml")


@promtool
def test_promtool_finds_the_metrics_well_named():
    run("check", "metrics", stdin=exposed())


@promtool
def test_promtool_understands_the_queries_of_the_dashboard(tmp_path):
    rules = [
        {"record": f"query_{number}", "expr": query}
        for number, query in enumerate(dashboard_queries())
    ]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    run("check", "rules", str(file))


@pytest.mark.parametrize(("port", "asked"), [(None, 3000), ("", 3000), ("8080", 8080)])
def test_the_images_health_check_asks_the_port_that_the_service_listens_on(
    monkeypatch: pytest.MonkeyPatch, port: str | None, asked: int
):
    checks = re.findall(r"^HEALTHCHECK .*\n    CMD (.*)$", DOCKERFILE.read_text(), re.MULTILINE)
    (program,) = [json.loads(check)[2] for check in checks if "/livez" in check]
    urls: list[str] = []
    monkeypatch.setattr("urllib.request.urlopen", lambda url, **_: urls.append(url))
    monkeypatch.delenv("EVENT_SERVICE_PORT", raising=False)
    if port is not None:
        monkeypatch.setenv("EVENT_SERVICE_PORT", port)

    exec(program, {})

    assert urls == [f"http://127.0.0.1:{asked}/livez"]
