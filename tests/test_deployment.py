"""The files to run the service with: of Kubernetes, systemd and nginx."""

import configparser
import json
import os
import re
import subprocess
import urllib.request
from http.client import HTTPConnection
from pathlib import Path

import pytest
import yaml

from event_service.settings import Settings

from .processes import BIN, event_service, free_port, mock_upstream, running

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
TIDY_UP = 4  # seconds, as docs/operations.md says
NGINX = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {server};
}}
"""


def manifests() -> dict[str, dict]:
    documents = yaml.safe_load_all((DEPLOY / "kubernetes/event-service.yaml").read_text())
    return {document["kind"]: document for document in documents}


def environment() -> dict[str, str]:
    (container,) = manifests()["Deployment"]["spec"]["template"]["spec"]["containers"]
    return {each["name"]: each.get("value", "") for each in container["env"]}


def test_kubernetes_sets_what_the_service_knows():
    known = {f"EVENT_SERVICE_{name.upper()}" for name in Settings.model_fields}

    assert environment().keys() <= known


def test_kubernetes_waits_as_long_as_an_end_may_take():
    pod = manifests()["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    command, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    settings = environment()
    ending = float(seconds) + float(settings["EVENT_SERVICE_DRAIN"])
    ending += float(settings["EVENT_SERVICE_REQUEST_DEADLINE"]) + TIDY_UP

    assert pod["terminationGracePeriodSeconds"] > ending


def test_what_selects_containers_finds_them():
    found = manifests()
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        found["Deployment"]["spec"]["selector"]["matchLabels"],
        found["Service"]["spec"]["selector"],
        found["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    ]

    assert all(selector == labels for selector in selectors)


def unit() -> str:
    return (DEPLOY / "systemd/event-service.service").read_text()


@pytest.mark.needs("systemd-analyze")
def test_systemd_understands_the_unit(tmp_path):
    # It looks whether the program is there.
    file = tmp_path / "event-service.service"
    file.write_text(unit().replace("/opt/event-service/bin", str(BIN)))

    found = subprocess.run(
        ["systemd-analyze", "verify", "--recursive-errors=no", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (found.returncode, found.stderr) == (0, "")


def test_systemd_waits_as_long_as_an_end_may_take():
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.read_string(unit())
    defaults = Settings.model_fields
    ending = defaults["drain"].default + defaults["request_deadline"].default + TIDY_UP

    assert parser.getfloat("Service", "TimeoutStopSec") > ending


@pytest.mark.needs("nginx")
def test_behind_nginx_the_service_sees_its_clients_and_the_dashboard_its_stream(needs, tmp_path):
    port = free_port()
    with (
        mock_upstream("--event-delay", "0") as upstream,
        event_service(upstream, TRUSTED_PROXIES="127.0.0.1", ENV="development") as (service, told),
    ):
        server = tmp_path / "event-service.conf"
        server.write_text(
            (DEPLOY / "nginx/event-service.conf")
            .read_text()
            .replace("127.0.0.1:3000", service.removeprefix("http://"))
            .replace("listen 80;", f"listen 127.0.0.1:{port};")
        )
        config = tmp_path / "nginx.conf"
        config.write_text(NGINX.format(folder=tmp_path, server=server))
        user = ["-g", "user root;"] if os.geteuid() == 0 else []
        with running(needs("nginx"), "-e", "stderr", "-c", config, *user):
            told.wait_for(f"http://127.0.0.1:{port}/livez")
            client = HTTPConnection("127.0.0.1", port, timeout=10, source_address=("127.0.0.2", 0))
            client.request("GET", "/api/getUsers", headers={"x-forwarded-for": "203.0.113.9"})
            users = json.load(client.getresponse())
            client.close()
            with urllib.request.urlopen(
                f"http://127.0.0.1:{port}/dashboard/stream", timeout=10
            ) as stream:
                first = stream.readline()
        told.stop()

    assert len(users) == 3
    assert first
    clients = re.findall(r'"path":"/api/getUsers".*?"client":"([^"]*)"', told.output)
    # Not what the client itself claimed.
    assert clients == ["127.0.0.2"]


def test_nginx_ends_an_idle_connection_before_the_service_does():
    """The other way round a request may meet the end of its connection, and a POST is lost."""
    config = (DEPLOY / "nginx/event-service.conf").read_text()
    (seconds,) = re.findall(r"^ *keepalive_timeout (\d+)s;", config, re.MULTILINE)

    assert float(seconds) < Settings.model_fields["keep_alive"].default
