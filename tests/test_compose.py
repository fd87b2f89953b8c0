import re
from pathlib import Path

import pytest
import yaml

DEPLOY = Path(__file__).parent.parent / "deploy"


@pytest.fixture(scope="module")
def services():
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]


def test_each_program_has_an_image_of_its_own_from_the_same_file(services):
    service, mock = services["event-service"]["build"], services["mock-upstream"]["build"]
    dockerfile = DEPLOY / service["context"] / service["dockerfile"]
    stages = re.findall(r"^FROM \S+ AS (\S+)$", dockerfile.read_text(), re.MULTILINE)

    assert mock == {**service, "target": "mock"}
    assert services["event-service"]["image"] != services["mock-upstream"]["image"]
    assert "mock" in stages
    assert stages[-1] == "service", "what is built without a target is the service"


def test_our_containers_can_write_nowhere_but_in_a_temporary_folder(services):
    for name in ("event-service", "mock-upstream"):
        assert services[name]["read_only"] is True
        assert services[name]["tmpfs"] == ["/tmp"]
        assert services[name]["cap_drop"] == ["ALL"]
        assert "volumes" not in services[name]


def test_every_published_port_is_for_this_machine_alone(services):
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert len(published) == 3
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_image_of_others_is_a_release(services):
    others = [service["image"] for service in services.values() if "build" not in service]

    assert len(others) == 2
    for image in others:
        tag = image.rpartition(":")[2]
        assert tag.lstrip("v")[0].isdigit()


def test_what_is_mounted_exists_and_prometheus_scrapes_the_service_with_its_token(services):
    for service in services.values():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0]
            assert not source.startswith(".") or (DEPLOY / source).is_dir(), source
    settings = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    scrape = jobs["event-service"]

    assert scrape["static_configs"] == [{"targets": ["event-service:3000"]}]
    (secret,) = services["prometheus"]["secrets"]
    assert scrape["authorization"]["credentials_file"] == f"/run/secrets/{secret}"


def test_grafana_opens_with_the_dashboard_of_this_repository(services):
    home = services["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    provider = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/dashboards.yml").read_text()
    )

    assert (DEPLOY / "grafana/dashboards" / Path(home).name).is_file()
    assert provider["providers"][0]["options"]["path"] == str(Path(home).parent)
    assert f"./grafana/dashboards:{Path(home).parent}:ro" in services["grafana"]["volumes"]
