"""The service behind an nginx that does no more than pass requests on, with its own Host header."""

import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from .processes import Process, event_service, free_port, mock_upstream, running

TOKEN = "open-sesame-to-operators"
RATE = 40  # per hour and client
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 128; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    client_max_body_size 0;
    proxy_http_version 1.1;
    proxy_set_header Connection "";
    proxy_next_upstream off;
    upstream event_service {{ server {service}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{buffering};
        location / {{ proxy_pass http://event_service; }}
    }}
    server {{
        listen 127.0.0.1:{passing_on};
        location / {{ proxy_pass http://event_service; proxy_request_buffering off; }}
    }}
}}
"""


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Proxied(NamedTuple):
    buffering: int  # the port where nginx reads a request whole before it passes it on
    passing_on: int  # the port where it passes on what it has
    service: Process
    port: int  # the service's own

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        *,
        port: int | None = None,
    ) -> Reply:
        client = HTTPConnection("127.0.0.1", port or self.buffering, timeout=30)
        try:
            client.request(method, path, body, headers or {})
            response = client.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            client.close()

    def connections(self) -> int:
        """How many connections to the service are open."""
        processes = [psutil.Process(pid) for pid in self.service.pids()]
        return sum(
            each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self.port
            for process in processes
            for each in process.net_connections("tcp")
        )


@pytest.fixture(scope="module")
def proxied(
    needs: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxied]:
    nginx = needs("nginx")
    folder = tmp_path_factory.mktemp("nginx")
    buffering, passing_on = free_port(), free_port()
    with (
        mock_upstream("--event-delay", "0", "--refuse", "0") as upstream,
        event_service(
            upstream,
            ENV="production",
            OPS_TOKEN=TOKEN,
            DASHBOARD_CONTROLS="true",
            TRUSTED_PROXIES="127.0.0.1",
            RATE_LIMIT=f"{RATE}/hour",
        ) as (url, service),
    ):
        address = url.removeprefix("http://")
        config = folder / "nginx.conf"
        config.write_text(
            NGINX.format(folder=folder, service=address, buffering=buffering, passing_on=passing_on)
        )
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        with running(nginx, "-e", "stderr", "-c", config, *user):
            for port in (buffering, passing_on):
                service.wait_for(f"http://127.0.0.1:{port}/livez")
            yield Proxied(buffering, passing_on, service, int(address.rpartition(":")[2]))


def of_the_page(site: str) -> dict[str, str]:
    """What a browser sends along for a page of the proxy's public name."""
    return {
        "content-type": "application/json",
        "host": "Dashboard.Example:8443",
        "origin": "https://dashboard.example:8443",
        "sec-fetch-site": site,
    }


def test_an_operator_signs_in_and_uses_a_control_behind_nginx(proxied: Proxied):
    sign_in = json.dumps({"token": TOKEN}).encode()
    signed_in = proxied.ask("POST", "/dashboard/session", sign_in, of_the_page("same-origin"))
    session = {"cookie": signed_in.headers.get("set-cookie", "").partition(";")[0]}
    control = {"x-dashboard-control": "1", **of_the_page("same-origin"), **session}
    order = json.dumps({"reason": "a try", "by": "Ada"}).encode()
    path = "/dashboard/controls/breakers/getUsers"

    tripped = proxied.ask("POST", f"{path}/trip", order, control)
    reset = proxied.ask("POST", f"{path}/reset", order, control)

    assert (signed_in.status, tripped.status, reset.status) == (200, 200, 200)


def test_another_site_is_refused_behind_nginx(proxied: Proxied):
    sign_in = json.dumps({"token": TOKEN}).encode()
    for site in ("cross-site", "same-site"):
        reply = proxied.ask("POST", "/dashboard/session", sign_in, of_the_page(site))
        assert reply.status == 403


@pytest.mark.parametrize("port", ["buffering", "passing_on"])
@pytest.mark.parametrize(
    ("path", "content_type", "status"),
    [
        ("/api/addEvent", "application/json", 413),
        ("/api/addEvent", "text/plain", 415),
        ("/api/nothing", "application/json", 404),
        ("/api/getUsers", "application/json", 405),
    ],
)
def test_a_refused_large_upload_gets_its_status_through_nginx(
    proxied: Proxied, path: str, content_type: str, status: int, port: str
):
    headers = {"content-type": content_type, "x-forwarded-for": f"192.0.2.{status % 100}"}
    large = b" " * 20_000_000

    found = [
        proxied.ask("POST", path, large, headers, port=getattr(proxied, port)).status
        for _ in range(3)
    ]

    assert found == [status] * 3


@pytest.mark.parametrize("port", ["buffering", "passing_on"])
def test_a_large_upload_over_the_rate_gets_its_429_through_nginx(proxied: Proxied, port: str):
    headers = {"content-type": "application/json", "x-forwarded-for": "198.51.100.7"}
    statuses = set()
    for _ in range(RATE + 1):
        statuses.add(proxied.ask("GET", "/api/nothing", headers=headers).status)
    assert 429 in statuses

    large = b" " * 20_000_000
    reply = proxied.ask("POST", "/api/addEvent", large, headers, port=getattr(proxied, port))

    assert reply.status == 429
    assert json.loads(reply.body)["type"] == "/problems/rate-limited"


def test_no_post_is_lost_over_connections_that_nginx_keeps(proxied: Proxied):
    headers = {"content-type": "application/json", "x-forwarded-for": "203.0.113.5"}
    event = b'{"userId":"1","title":"Standup"}'

    def add(_: int) -> int:
        return proxied.ask("POST", "/api/addEvent", event, headers).status

    with ThreadPoolExecutor(16) as threads:
        first = list(threads.map(add, range(16)))
        kept = proxied.connections()
        second = list(threads.map(add, range(16)))

    assert first + second == [200] * 32
    assert 0 < proxied.connections() <= max(kept, 16) + 2
