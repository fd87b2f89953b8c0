"""The events API as nginx with static replies: far faster than any server under test."""

from pathlib import Path

from benchmarks import data

SIZES = (0, 1, 2, 3, 10)  # how many events a user may have here


def config(folder: Path, port: int, refusing_port: int) -> Path:
    """Write nginx's configuration and return its path.

    On `refusing_port` the same data is served, but every new event is refused with 503.
    """
    path = folder / "nginx.conf"
    path.write_text(f"""
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
pcre_jit on;
worker_rlimit_nofile 16384;
events {{ worker_connections 16000; multi_accept on; }}
http {{
    access_log off;
    keepalive_timeout 1h;
    keepalive_requests 1000000000;
    default_type application/json;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        {_reads()}
        location = /addEvent {{ return 200 '{data.encode(data.ADDED)}'; }}
    }}
    server {{
        listen 127.0.0.1:{refusing_port} backlog=4096;
        {_reads()}
        location = /addEvent {{ return 503 '{data.encode(data.REFUSED)}'; }}
    }}
}}
""")
    return path


def _reads() -> str:
    event = data.encode(data.event("KEY-PLACE")).replace("KEY", "$1").replace("PLACE", "$2")
    users = "\n".join(
        f"location ~ ^/getUserById/(.+)-{size}$ {{ return 200 '{_user(size)}'; }}" for size in SIZES
    )
    return f"""
        location = /getUsers {{ return 200 '{data.encode(data.USERS)}'; }}
        location = /getEvents {{ return 200 '{data.encode(data.EVENTS)}'; }}
        location ~ ^/getEventById/(.+)-([0-9]+)$ {{ return 200 '{event}'; }}
        {users}
        location / {{ return 404 '{{}}'; }}"""


def _user(size: int) -> str:
    return data.encode(data.user(f"KEY-{size}")).replace("KEY", "$1")
