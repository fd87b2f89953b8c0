"""Two services of two workers each behind nginx, with one Redis: one circuit and one rate."""

import contextlib
import hashlib
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import cycle, islice
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect
from redis import Redis

from halfopen.redis import scripts

from .dashboard_page import badge, gauge, opened
from .processes import event_service, free_port, mock_upstream, running

pytestmark = [pytest.mark.needs("redis-server", "nginx"), pytest.mark.timeout(120)]

COOLDOWN = 0.6
EVENT = {"userId": "1", "title": "Standup"}
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 256; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream services {{ {servers} }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://services;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_next_upstream off;
        }}
    }}
}}
"""


@pytest.fixture
def redis(needs, tmp_path) -> Iterator[str]:
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", ""]
    with running(needs("redis-server"), *options):
        yield f"redis://127.0.0.1:{port}"


@contextmanager
def nginx(program: Path, folder: Path, *services: str) -> Iterator[str]:
    port = free_port()
    servers = " ".join(f"server {service.removeprefix('http://')};" for service in services)
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port, servers=servers))
    user = ["-g", "user root;"] if os.geteuid() == 0 else []
    with running(program, "-e", "stderr", "-c", config, *user):
        yield f"http://127.0.0.1:{port}"


def call(url: str, body: object = None) -> tuple[int, str]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url, data, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def until(condition, patience: float = 20.0) -> None:
    """What happens in other processes is looked for again and again."""
    give_up = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.05)


@pytest.fixture
def cluster(needs, tmp_path, redis):
    """The address of nginx, those of the two services, and that of the mock."""
    settings = {
        "CLUSTER_URL": redis,
        "WORKERS": "2",
        "BREAKER_COOLDOWN": str(COOLDOWN),
        "RATE_LIMIT": "400/hour",
        "TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(upstream, **settings) as (here, _),
        event_service(upstream, **settings) as (there, _),
        nginx(needs("nginx"), tmp_path, here, there) as front,
    ):
        for service in (here, there):
            until(lambda service=service: "cluster_nodes 4.0" in call(f"{service}/metrics")[1])
        until(lambda: call(f"{front}/livez")[0] == 200)
        yield front, (here, there), upstream


def fail_adds(upstream: str, status: int | None) -> None:
    fault = {} if status is None else {"error_rate": 1.0, "status": status}
    url = f"{upstream}/__admin/faults/addEvent"
    request = urllib.request.Request(
        url, json.dumps(fault).encode(), {"content-type": "application/json"}, method="PUT"
    )
    urllib.request.urlopen(request, timeout=10).close()


def adds_at(upstream: str) -> int:
    return json.loads(call(f"{upstream}/__admin/requests")[1])["counts"]["addEvent"]


def test_two_services_behind_nginx_are_one(cluster):
    front, services, upstream = cluster

    def add(_number: int = 0) -> int:
        return call(f"{front}/api/addEvent", EVENT)[0]

    fail_adds(upstream, 500)
    until(lambda: add() == 503)
    for service in services:
        until(lambda service=service: '"addEvent":"open"' in call(f"{service}/readyz")[1])
    before, started = adds_at(upstream), time.monotonic()
    with ThreadPoolExecutor(8) as crowd:
        statuses = Counter(crowd.map(add, range(120)))
    # One canary for each cooldown, whichever of the four workers is asked.
    canaries, cooldowns = adds_at(upstream) - before, (time.monotonic() - started) / COOLDOWN
    assert canaries <= cooldowns + 1
    assert statuses[503] >= 110

    fail_adds(upstream, None)
    until(lambda: add() == 200)
    for service in services:
        until(lambda service=service: '"addEvent":"closed"' in call(f"{service}/readyz")[1])

    # One rate: 400 together, and a tenth on credit at the most.
    with ThreadPoolExecutor(8) as crowd:
        statuses = Counter(crowd.map(lambda _: call(f"{front}/api/getUsers")[0], range(500)))
    assert statuses[429] > 0
    assert statuses[200] <= 440


@pytest.mark.browser
@pytest.mark.needs("chromium")
def test_the_dashboard_of_either_shows_all_nodes_and_the_circuit_of_all(cluster, browser: Browser):
    front, (here, there), upstream = cluster
    with opened(browser, here) as near, opened(browser, there) as far:
        for page in (near, far):
            expect(gauge(page, "Cluster").locator("b")).to_have_text("4 nodes")

        fail_adds(upstream, 500)
        until(lambda: call(f"{front}/api/addEvent", EVENT)[0] == 503)

        for page in (near, far):
            expect(badge(page, "addEvent")).not_to_have_text("Closed")
        fail_adds(upstream, None)
        until(lambda: call(f"{front}/api/addEvent", EVENT)[0] == 200)
        for page in (near, far):
            expect(badge(page, "addEvent")).to_have_text("Closed")


HEALTHY_REQUESTS = int(os.environ.get("HEALTHY_REQUESTS", "2000"))


def test_healthy_requests_send_redis_nothing_but_one_look_a_second_and_node(redis):
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(upstream, CLUSTER_URL=redis, WORKERS="2") as (service, _),
        Redis.from_url(redis) as watcher,
        Redis.from_url(redis) as other,
    ):
        until(lambda: "cluster_nodes 2.0" in call(f"{service}/metrics")[1])
        other.ping()  # its connection is made before
        with watcher.monitor() as monitor, ThreadPoolExecutor(8) as crowd:
            statuses = Counter(
                status for part in crowd.map(healthy_requests, [service] * 8) for status in part
            )
            other.echo("now")
            sent = list(commands_until_echo(monitor))

    assert statuses == {200: HEALTHY_REQUESTS // 8 * 8}
    look = hashlib.sha1(scripts.LOOK.encode()).hexdigest()
    assert {command for _, _, command in sent} <= {f"EVALSHA {look}"}
    by_node = Counter(connection for _, connection, _ in sent)
    assert len(by_node) <= 2
    if sent:
        assert max(by_node.values()) <= sent[-1][0] - sent[0][0] + 2


def healthy_requests(service: str) -> list[int]:
    """The statuses of an eighth of the requests, on one connection."""
    connection = http.client.HTTPConnection(service.removeprefix("http://"), timeout=10)
    # What is added makes no reply of these longer.
    add = json.dumps({"userId": "2", "title": "Standup"})
    requests = [("GET", "/api/getEventsByUserId/1", None), ("POST", "/api/addEvent", add)]
    statuses = []
    with contextlib.closing(connection):
        for method, path, body in islice(cycle(requests), HEALTHY_REQUESTS // 8):
            connection.request(method, path, body, {"content-type": "application/json"})
            response = connection.getresponse()
            response.read()
            statuses.append(response.status)
    return statuses


def commands_until_echo(monitor) -> Iterator[tuple[float, str, str]]:
    """What clients have sent since `monitor` began: when, on which connection, and what."""
    for seen in monitor.listen():
        words = seen["command"].split()
        if words[0] == "ECHO":
            return
        if seen["client_type"] != "lua":
            yield seen["time"], seen["client_port"], " ".join(words[:2])


def test_each_line_of_a_nodes_log_names_the_node(redis):
    with (
        mock_upstream("--event-delay", "0") as upstream,
        event_service(upstream, CLUSTER_URL=redis, WORKERS="2") as (service, process),
    ):
        for _ in range(20):
            call(f"{service}/api/getUsers")
        until(lambda: '"path":"/api/getUsers"' in process.output)
        lines = [json.loads(line) for line in process.output.splitlines()]

    requests = [line for line in lines if line["event"] == "request"]
    assert all(line["node"] and line["worker"] for line in requests)
    assert len({line["node"] for line in requests}) == len({line["worker"] for line in requests})
