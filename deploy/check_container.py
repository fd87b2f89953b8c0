"""Runs the two built images together and checks the promises of their Dockerfile.

`check_container.py SERVICE SERVICE.json MOCK MOCK.json` gets the file system of each image and the
output of `buildah inspect` for it. It needs root to enter a file system, which is read-only for the
programs, except /tmp.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from deploy.claims import START_TIMEOUT, expect, free_port, get, wait_for

USER = "10001"
# Packages for the mock, development and installation, which production must not have.
NOT_IN_PRODUCTION = ("aiohttp-", "event_mock_upstream-", "watchfiles-")
INSTALLERS = ("pip-", "setuptools-", "hatch")
NO_BUILD_TOOLS = (
    "cc",
    "gcc",
    "g++",
    "make",
    "ld",
    "pip",
    "pip3",
    "hatchling",
    "git",
    "curl",
    "wget",
)
# In a new mount namespace, so that nothing has to be unmounted.
ENTER = f"""
mount --bind "$0" "$0"
mount -o remount,bind,ro "$0"
mount -t tmpfs tmpfs "$0/tmp"
mount --rbind /dev "$0/dev"
exec chroot --userspec={USER}:{USER} --groups= "$0" env -i "$@"
"""


class Image(NamedTuple):
    root: Path
    config: dict[str, Any]

    def start(self, *command: str, **environ: str) -> subprocess.Popen[str]:
        variables = [*self.config["Env"], *(f"{k}={v}" for k, v in environ.items())]
        return subprocess.Popen(
            ["unshare", "--mount", "sh", "-ec", ENTER, self.root, *variables, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def installed(self) -> list[str]:
        return [each.name for each in self.root.rglob("*.dist-info")]

    def health(self, **environ: str) -> int:
        test = self.config["Healthcheck"]["Test"]
        expect(test[0] == "CMD", "the health check needs no shell")
        process = self.start(*test[1:], **environ)
        process.communicate(timeout=10)
        return process.returncode


def main() -> None:
    paths = [Path(each) for each in sys.argv[1:]]
    image, mock_image = (
        Image(root, json.loads(description.read_text())["Docker"]["config"])
        for root, description in (paths[:2], paths[2:])
    )
    for each, title in ((image, "event-service"), (mock_image, "event-mock-upstream")):
        print(f"\n{title}")
        check_contents(each, title)
    unwanted = [name for name in image.installed() if name.startswith(NOT_IN_PRODUCTION)]
    expect(not unwanted, f"the service's image has nothing of the mock {unwanted or ''}")
    port, upstream_port = str(free_port()), str(free_port())
    upstream = f"http://127.0.0.1:{upstream_port}"
    settings = {"EVENT_SERVICE_PORT": port, "EVENT_SERVICE_UPSTREAM_URL": upstream}
    mock = mock_image.start("mock-upstream", "--port", upstream_port)
    service = image.start(*image.config["Cmd"], **settings)
    try:
        wait_for(f"{upstream}/healthz", mock)
        wait_for(f"http://127.0.0.1:{port}/livez", service)
        check_service(f"http://127.0.0.1:{port}", service)
        expect(image.health(**settings) == 0, "the health check passes while the service runs")
    finally:
        service.send_signal(signal.SIGTERM)
        mock.send_signal(signal.SIGTERM)
        codes = service.wait(30), mock.wait(30)
    expect(codes == (0, 0), "SIGTERM ends both with 0")
    expect(image.health(**settings) != 0, "the health check fails when the service is gone")
    unconfigured = image.start(*image.config["Cmd"])
    _, said = unconfigured.communicate(timeout=START_TIMEOUT)
    expect(unconfigured.returncode != 0, "in production it does not start without an upstream")
    expect("UPSTREAM_URL" in said, "and says which setting is missing")


def check_contents(image: Image, title: str) -> None:
    expect(image.config["User"] == USER, "the user is not root, and is given by number")
    path = dict(each.split("=", 1) for each in image.config["Env"])["PATH"]
    folders = [str(image.root / folder.lstrip("/")) for folder in path.split(":")]
    tools = [tool for tool in NO_BUILD_TOOLS if shutil.which(tool, path=":".join(folders))]
    expect(not tools, f"there are no build tools {tools or ''}")
    installed = image.installed()
    own = f"{title.replace('-', '_')}-"
    expect(any(name.startswith(own) for name in installed), "the distribution is installed")
    installers = [name for name in installed if name.startswith(INSTALLERS)]
    expect(not installers, f"nothing is installed that installs or builds {installers or ''}")
    labels = image.config["Labels"]
    expect(labels["org.opencontainers.image.title"] == title, "it is labelled")


def check_service(base: str, service: subprocess.Popen[str]) -> None:
    status = Path(f"/proc/{service.pid}/status").read_text()
    expect(f"Uid:\t{USER}\t{USER}" in status, "the service does not run as root")
    users = get(f"{base}/api/getUsers")
    expect(users[0]["name"] == "Alice Johnson", "getUsers reaches the mock in its own process")
    events = get(f"{base}/api/getEventsByUserId/1")
    expect([event["id"] for event in events] == ["101", "102"], "getEventsByUserId works")
    added = get(f"{base}/api/addEvent", {"userId": "1", "title": "From a container"})
    expect(added["success"] is True, "addEvent works")
    ready = get(f"{base}/readyz")
    expect(ready["status"] == "ok", "readyz says that it is ready")


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this needs root, to enter the image's file system")
    main()
