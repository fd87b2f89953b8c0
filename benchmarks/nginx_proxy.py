"""nginx between the load and the upstream, which passes one call on for each request.

It validates nothing, guards nothing and counts nothing: the limit that a user sees.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.processes import Process, free_port
from benchmarks.upstreams import Upstream, ready


@contextmanager
def proxying(upstream: Upstream, core: int) -> Iterator[Upstream]:
    """`GET /api/getEventsByUserId/{id}` is `GET /getUserById/{id}` of the upstream."""
    with TemporaryDirectory(prefix="event-service-benchmark-") as folder:
        port = free_port()
        config = _config(Path(folder), port, upstream.port)
        command = ("nginx", "-p", folder, "-c", config, "-e", "stderr")
        with Process(command, core=core) as process:
            yield ready(process, port, "/api/getEventsByUserId/ann-0")


def _config(folder: Path, port: int, upstream: int) -> Path:
    path = folder / "nginx.conf"
    path.write_text(f"""
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream events {{
        server 127.0.0.1:{upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /api/getEventsByUserId/ {{
            proxy_pass http://events/getUserById/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}
}}
""")
    return path
