import asyncio
import json
import os
import resource
import signal
import socket
import sys

import aiohttp
import psutil
import pytest

from .processes import Process, event_service, free_port, mock_upstream

pytestmark = pytest.mark.anyio


async def test_sigterm_under_load_loses_no_request():
    with (
        mock_upstream("--event-delay", "0.5") as upstream,
        event_service(upstream) as (url, process),
    ):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
            # Each asks for a user of its own: no two share an upstream call.
            requests = [
                asyncio.create_task(fetch(client, f"{url}/api/getEventsByUserId/1"))
                for _ in range(50)
            ]
            await until_in_flight(client, upstream)
            process.send(signal.SIGTERM)
            statuses = await asyncio.gather(*requests)
            code = await asyncio.to_thread(process.wait)
            with pytest.raises(aiohttp.ClientConnectorError):
                await client.get(f"{url}/livez")

    assert statuses == [200] * 50
    assert code == 0
    assert json.loads(process.output.splitlines()[-1])["event"] == "service stopped"


async def fetch(client: aiohttp.ClientSession, url: str) -> int:
    async with client.get(url) as response:
        await response.read()
        return response.status


async def until_in_flight(client: aiohttp.ClientSession, upstream: str) -> None:
    while True:
        async with client.get(f"{upstream}/__admin/requests") as response:
            if (await response.json())["in_flight"] > 0:
                return


def test_one_json_line_at_start_tells_the_effective_configuration_and_no_secret():
    with (
        mock_upstream() as upstream,
        event_service(upstream, OPS_TOKEN="hush-hush-hush-hush") as (_, process),
    ):
        pass

    first = json.loads(process.output.splitlines()[0])
    assert first["event"] == "service started"
    assert first["settings"]["EVENT_SERVICE_UPSTREAM_URL"] == upstream
    assert "hush-hush-hush-hush" not in process.output


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells another's limits")
def test_the_service_may_open_as_many_connections_as_its_user_may():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard - 1, hard))
    try:
        with event_service("http://127.0.0.1:9") as (_, process):
            limits = {resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in process.pids()}
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    assert limits == {(hard, hard)}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has this policy")
def test_the_threads_of_the_service_do_not_interrupt_each_other():
    with event_service("http://127.0.0.1:9") as (_, process):
        threads = [thread.id for pid in process.pids() for thread in psutil.Process(pid).threads()]
        policies = {os.sched_getscheduler(thread) for thread in threads}

    assert len(threads) > 2
    assert policies == {os.SCHED_BATCH}


def test_a_wrong_configuration_stops_the_start_with_exit_code_2():
    for command in ("serve", "dev", "check-config"):
        process = Process(
            "event-service", command, EVENT_SERVICE_PORT="no", EVENT_SERVICE_UNHEARD_OF="1"
        )

        assert process.wait() == 2
        assert process.output.splitlines() == [
            "The configuration is wrong:",
            "EVENT_SERVICE_UNHEARD_OF: unknown variable",
            "EVENT_SERVICE_PORT: must be a whole number from 1 to 65535 (got 'no')",
        ]


def test_check_config_prints_the_effective_settings_with_secrets_masked():
    process = Process(
        "event-service",
        "check-config",
        EVENT_SERVICE_ENV="production",
        EVENT_SERVICE_UPSTREAM_URL="https://events.example",
        EVENT_SERVICE_UPSTREAM_HEADERS='{"authorization":"Bearer hush-hush-hush-hush"}',
        EVENT_SERVICE_OPS_TOKEN="hush-hush-hush-hush",
    )

    assert process.wait() == 0
    lines = process.output.splitlines()
    assert "EVENT_SERVICE_UPSTREAM_URL=https://events.example" in lines
    assert '# EVENT_SERVICE_UPSTREAM_HEADERS={"authorization": "**********"}' in lines
    assert "# EVENT_SERVICE_OPS_TOKEN=**********" in lines
    assert "EVENT_SERVICE_BREAKER_FAILURES=3" in lines
    assert "hush" not in process.output


@pytest.mark.parametrize("command", ["serve", "dev"])
def test_a_taken_port_is_said_plainly(command: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = Process(
            "event-service",
            command,
            EVENT_SERVICE_PORT=str(port),
            EVENT_SERVICE_UPSTREAM_URL=f"http://127.0.0.1:{free_port()}",
        )

        assert process.wait() == 1

    assert process.output == (
        f"Cannot listen on 127.0.0.1 port {port} (Address already in use); "
        "choose another with EVENT_SERVICE_PORT.\n"
    )


def test_a_host_may_be_given_by_its_name():
    with event_service("http://127.0.0.1:9", HOST="localhost") as (url, process):
        assert url.startswith("http://127.0.0.1:")
        assert process.running


def test_a_host_that_nobody_knows_is_said_plainly():
    process = Process("event-service", "serve", EVENT_SERVICE_HOST="nowhere.invalid")

    assert process.wait() == 1
    (line,) = process.output.splitlines()
    assert line.startswith("Cannot listen on nowhere.invalid port 3000 (")
