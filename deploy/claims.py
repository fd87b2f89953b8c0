"""Helpers for the checks of wheels and images: wait for a server, check a claim."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from typing import Any

START_TIMEOUT = 60.0


def expect(holds: object, claim: str) -> None:
    """Ends the program unless the claim holds."""
    if not holds:
        sys.exit(f"FAILED: {claim}")
    print(f"ok: {claim}", flush=True)


def wait_for(url: str, process: subprocess.Popen[Any]) -> None:
    """Wait until the URL answers; ends the program if the process ends before that."""
    give_up = time.monotonic() + START_TIMEOUT
    while time.monotonic() < give_up and process.poll() is None:
        try:
            fetch(url)
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
        else:
            return
    sys.exit(f"FAILED: nothing answers at {url}")


def get(url: str, body: object = None) -> Any:
    return json.loads(fetch(url, body))


def fetch(url: str, body: object = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        content: bytes = response.read()
        return content


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
