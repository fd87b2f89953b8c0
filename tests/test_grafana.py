"""Every query of Grafana's dashboard has data once a real Prometheus has scraped a real service."""

import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from .processes import event_service, free_port, mock_upstream, running

pytestmark = [pytest.mark.needs("prometheus", "redis-server"), pytest.mark.timeout(120)]

DASHBOARD = Path(__file__).parent.parent / "deploy/grafana/dashboards/event-service.json"
# What Grafana puts in place of its variables. The interval holds many scrapes of 0.2 s.
VARIABLES = {"$job": "event-service", "$__rate_interval": "30s"}
CONFIGURATION = """
global: {{ scrape_interval: 200ms, scrape_timeout: 200ms }}
scrape_configs:
  - job_name: event-service
    static_configs: [{{ targets: ["{target}"] }}]
"""
PATIENCE = 60


def queries() -> dict[str, str]:
    """Each query, by its panel and its number there."""
    dashboard = json.loads(DASHBOARD.read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    found |= {each["name"]: each["expr"] for each in dashboard["annotations"]["list"]}
    for variable, value in VARIABLES.items():
        found = {name: query.replace(variable, value) for name, query in found.items()}
    return found


def call(url: str, body: object = None, **headers: str) -> None:
    """Whatever the answer is."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **headers})
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except urllib.error.HTTPError as error:
        error.close()


def some_of_everything(service: str) -> None:
    """Reads and writes, a circuit that opens, refusals, and events for later."""
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(call, [f"{service}/api/getEventsByUserId/1"] * 8))
    for _ in range(9):
        call(f"{service}/api/addEvent", {"userId": "2", "title": "Concert"})
    call(f"{service}/api/addEvent", {"userId": "1", "title": "Later"}, prefer="respond-async")


@pytest.fixture
def redis(needs: Callable[[str], Path], tmp_path: Path) -> Iterator[str]:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with running(needs("redis-server"), *options):
        yield f"redis://127.0.0.1:{port}"


@pytest.fixture
def prometheus(
    needs: Callable[[str], Path], redis: str, tmp_path: Path
) -> Iterator[tuple[str, str]]:
    """The addresses of a service with everything on, and of the Prometheus that scrapes it."""
    settings = {
        "OUTBOX_URL": f"sqlite:///{tmp_path}/outbox.db",
        "CLUSTER_URL": redis,
        "CACHE_TTL": "0.05",
        "RATE_LIMIT": "1000/second",
        "BREAKER_COOLDOWN": "0.5",
    }
    options = ["--event-delay", "0.05", "--accept", "5", "--refuse", "3"]
    with mock_upstream(*options) as upstream, event_service(upstream, **settings) as (service, _):
        configuration = tmp_path / "prometheus.yml"
        target = service.removeprefix("http://")
        configuration.write_text(CONFIGURATION.format(target=target))
        address = f"127.0.0.1:{free_port()}"
        with running(
            needs("prometheus"),
            f"--config.file={configuration}",
            f"--storage.tsdb.path={tmp_path}/tsdb",
            f"--web.listen-address={address}",
        ):
            yield service, f"http://{address}"


def value(prometheus: str, query: str) -> list[float]:
    """The values of all series that a query gives now; none if Prometheus cannot tell."""
    url = f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=10) as response:
            series = json.load(response)["data"]["result"]
    except OSError:
        return []
    return [float(each["value"][1]) for each in series]


def test_every_query_of_the_dashboard_has_data(prometheus: tuple[str, str]):
    service, address = prometheus
    until(lambda: value(address, 'up{job="event-service"}') == [1.0])
    empty = queries()

    def all_have_data() -> bool:
        # Again and again: a rate needs two scrapes with something between them.
        some_of_everything(service)
        for name in list(empty):
            if any(math.isfinite(each) for each in value(address, empty[name])):
                del empty[name]
        return not empty

    until(all_have_data, lambda: f"no data: {empty}")


def until(condition: Callable[[], bool], told: Callable[[], str] = str) -> None:
    """What happens in other processes is looked for again and again."""
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, told()
        time.sleep(0.2)
