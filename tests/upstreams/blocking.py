"""A WSGI program as gunicorn's sync workers run it: one call at a time, no kept connections.

It answers a write with 204 and no body. `gunicorn --chdir tests/upstreams blocking:app`
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

_data = json.loads(Path(__file__).with_name("strings.json").read_text())
_kinds = {kind: {each["id"]: each for each in items} for kind, items in _data.items()}


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    kind, _, wanted = environ["PATH_INFO"].removeprefix("/").partition("/")
    items = _kinds.get(kind)
    if items is None:
        return _answer(start_response, "404 Not Found")
    if environ["REQUEST_METHOD"] == "POST":
        new = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
        items[new["id"]] = new
        return _answer(start_response, "204 No Content")
    if wanted:
        item = items.get(wanted)
        return _answer(start_response, "200 OK" if item else "404 Not Found", item)
    user = parse_qs(environ["QUERY_STRING"]).get("userId")
    chosen = [each for each in items.values() if user is None or each["userId"] == user[0]]
    return _answer(start_response, "200 OK", chosen)


def _answer(start_response: Callable[..., Any], status: str, body: Any = None) -> Iterable[bytes]:
    content = b"" if body is None else json.dumps(body).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content)))]
    start_response(status, headers)
    return [content]
