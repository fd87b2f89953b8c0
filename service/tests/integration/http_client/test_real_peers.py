"""The servers that people run, over real sockets."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from event_service.libs.http_client import HttpClient, parse_base_url

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

NGINX = """
daemon off;
worker_processes 1;
pid DIR/pid;
error_log stderr;
events { worker_connections 768; }
http {
    access_log off;
    keepalive_timeout KEEP_ALIVE;
    client_body_temp_path DIR; proxy_temp_path DIR; fastcgi_temp_path DIR;
    uwsgi_temp_path DIR; scgi_temp_path DIR;
    gzip on; gzip_min_length 1; gzip_types text/plain; gzip_proxied any;
    default_type text/plain;
    server {
        listen 127.0.0.1:PORT backlog=1024;
        location /stored { client_max_body_size 64k; proxy_pass http://127.0.0.1:PORT/id; }
        location / { return 200 $uri; }
        location /gone { return 204; }
    }
}
"""
NODE = """
const http = require('http');
const server = http.createServer((request, response) => {
  const size = request.url === '/large' ? 3000000 : 1;
  request.resume().on('end', () => {
    response.write(request.url.repeat(1));
    if (size > 1) response.write('x'.repeat(size));
    response.end();
  });
});
server.keepAliveTimeout = 1000;
server.listen(PORT, '127.0.0.1');
"""
WSGI = """
def app(environ, start_response):
    environ['wsgi.input'].read(int(environ.get('CONTENT_LENGTH') or 0))
    body = environ['PATH_INFO'].encode()
    start_response('200 OK', [('Content-Length', str(len(body)))])
    return [body]
"""
ASGI = """
async def app(scope, receive, send):
    assert scope['type'] == 'http'
    await receive()
    await send({'type': 'http.response.start', 'status': 200, 'headers': []})
    await send({'type': 'http.response.body', 'body': scope['path'].encode()})
"""
BIN = Path(sys.executable).parent


def start_nginx(run, needs, keep_alive):
    config = NGINX.replace("KEEP_ALIVE", keep_alive)
    return run(
        str(needs("nginx")), "-p", "DIR", "-c", "DIR/conf", "-e", "stderr", files={"conf": config}
    )


@pytest.fixture(scope="module")
def nginx(run, needs):
    return start_nginx(run, needs, "75s")


@pytest.fixture(scope="module")
def nginx_of_a_second(run, needs):
    return start_nginx(run, needs, "1s")


@pytest.fixture(scope="module")
def node(run, needs):
    return run(str(needs("node")), "DIR/server.js", files={"server.js": NODE})


@pytest.fixture(scope="module")
def uvicorn(run):
    return run(
        str(BIN / "uvicorn"), "peer:app", "--port", "PORT", "--app-dir", "DIR", "--lifespan", "off",
        "--timeout-keep-alive", "1",
        files={"peer.py": ASGI},
    )  # fmt: skip


@pytest.fixture(scope="module")
def gunicorn(run):
    """Its sync workers close each connection after its reply."""
    return run(
        str(BIN / "gunicorn"), "peer:app", "--bind", "127.0.0.1:PORT", "--chdir", "DIR",
        "--worker-tmp-dir", "DIR", "--workers", "1",
        files={"peer.py": WSGI},
    )  # fmt: skip


@pytest.fixture(scope="module")
def gunicorn_threads(run):
    return run(
        str(BIN / "gunicorn"), "peer:app", "--bind", "127.0.0.1:PORT", "--chdir", "DIR",
        "--worker-tmp-dir", "DIR", "--workers", "1", "--threads", "8", "--keep-alive", "1",
        files={"peer.py": WSGI},
    )  # fmt: skip


@pytest.fixture(params=["nginx", "node", "uvicorn", "gunicorn", "gunicorn_threads"])
async def client(request):
    port = request.getfixturevalue(request.param)
    client = HttpClient(parse_base_url(f"http://127.0.0.1:{port}"), connections=8)
    yield client
    await client.close()


async def fetch(client, target, method="GET", body=b"", time_limit=10.0):
    key = {"idempotency-key": target} if method == "POST" else None
    reply = await client.send(method, target, headers=key, body=body, time_limit=time_limit)
    return reply.status, await reply.read()


async def test_calls_by_the_hundred(client):
    found = await asyncio.gather(*(fetch(client, f"/{n}") for n in range(200)))
    assert found == [(200, b"/%d" % n) for n in range(200)]
    assert client.connections <= 8


async def test_events_are_sent_with_their_bodies(client):
    for n in range(20):
        assert await fetch(client, f"/{n}", "POST", bytes(1000 * n)) == (200, b"/%d" % n)


async def test_half_of_the_callers_leave_and_the_rest_get_their_own(client):
    calls = [asyncio.create_task(fetch(client, f"/{n}")) for n in range(200)]
    for call in calls[::2]:
        await asyncio.sleep(0)
        call.cancel()
    left = await asyncio.gather(*calls, return_exceptions=True)
    assert left[1::2] == [(200, b"/%d" % n) for n in range(1, 200, 2)]


async def test_a_large_body_comes_whole(node):
    client = HttpClient(parse_base_url(f"http://127.0.0.1:{node}"))
    assert await fetch(client, "/large") == (200, b"/large" + b"x" * 3_000_000)
    await client.close()


@pytest.mark.parametrize("server", ["nginx_of_a_second", "node", "uvicorn"])
async def test_no_call_fails_as_a_server_hangs_up_idle_connections(server, request):
    """These servers hang up after a second. The loop is busy at that moment, and learns of it
    only after it has sent the next call.
    """
    url = parse_base_url(f"http://127.0.0.1:{request.getfixturevalue(server)}")
    client = HttpClient(url, connections=20, keep_alive=30.0)
    for method in ("GET", "POST"):
        assert await fetch(client, "/a") == (200, b"/a")
        time.sleep(1.3)  # noqa: ASYNC251 - a busy loop is what this is about
        assert await fetch(client, "/a", method, b"x") == (200, b"/a")
    await client.close()
