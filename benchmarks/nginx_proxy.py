"""nginx between the load and the upstream, which passes one call on for each request.

It validates nothing, guards nothing and counts nothing: the limit that a user sees. This writes its
configuration into the folder it is started in, and becomes nginx.
"""

import os
from pathlib import Path
from urllib.parse import urlsplit


def main() -> None:
    """`GET /api/getEventsByUserId/{id}` is `GET /getUserById/{id}` of the upstream."""
    folder = Path.cwd()
    config = folder / "nginx.conf"
    config.write_text(_config(folder, os.environ["PORT"], urlsplit(os.environ["UPSTREAM_URL"])[1]))
    os.execvp("nginx", ("nginx", "-p", folder, "-c", config, "-e", "stderr"))


def _config(folder: Path, port: str, upstream: str) -> str:
    return f"""
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
        server {upstream};
        keepalive 256;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port} backlog=4096;
        location /api/getEventsByUserId/ {{ proxy_pass http://events/getUserById/; }}
        location /api/ {{ proxy_pass http://events/; }}
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }}
}}
"""


if __name__ == "__main__":
    main()
