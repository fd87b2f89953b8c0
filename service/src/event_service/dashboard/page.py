"""The live dashboard: page, assets, feed and sign-in."""

import hashlib
from collections.abc import Mapping
from html import escape
from http import HTTPStatus
from importlib.resources import files
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from event_service.dashboard.operators import (
    COOKIE,
    LIFETIME,
    OperatorAccess,
    OperatorsOnly,
    address,
)
from event_service.dashboard.same_origin import require_same_origin
from event_service.errors import Unauthorized
from event_service.http.body import read_json
from event_service.http.endpoint import Endpoint, Reply

RUNBOOK = "/dashboard/runbook"
_HTML = "text/html; charset=utf-8"
_MEDIA_TYPES = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_PAGE_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    ),
    "cache-control": "no-store",
}
# Cached forever: the URL contains a hash of all assets.
_ASSET_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}


class _SignIn(msgspec.Struct, forbid_unknown_fields=True):
    token: str


_sign_in = msgspec.json.Decoder(_SignIn)


class Page(NamedTuple):
    """Which controls and links the page offers."""

    breaker_controls: bool
    mock_controls: bool
    asks: bool = False  # for a reason and a name before a control is used
    outbox_controls: bool = False
    # URLs. `trace` contains {trace_id}; an empty `runbook` means the built-in one.
    runbook: str = ""
    grafana: str = ""
    trace: str = ""


def dashboard_routes(
    page: Page, stream: ASGIApp, *, access: OperatorAccess | None
) -> list[BaseRoute]:
    """`access` None: anybody may see the dashboard."""
    assets = _assets()
    digest = hashlib.sha256(b"".join(assets[name] for name in sorted(assets))).hexdigest()[:16]
    offers = {
        "breakers": page.breaker_controls,
        "mock": page.mock_controls,
        "outbox": page.outbox_controls,
    }
    values = {
        "assets": f"/dashboard/assets/{digest}",
        "controls": " ".join(name for name, offered in offers.items() if offered),
        "session": "" if access is None else "yes",
        "asks": "yes" if page.asks else "",
        "runbook": page.runbook or RUNBOOK,
        "grafana": page.grafana,
        "trace": page.trace,
    }
    dashboard = _fill(assets.pop("index.html"), values)
    sign_in = _fill(assets.pop("sign_in.html"), values)
    runbook = _fill(assets.pop("runbook.html"), values)

    async def get_page(request: Request) -> Reply:
        return page_for_operators(request, dashboard)

    async def get_runbook(request: Request) -> Reply:
        return page_for_operators(request, runbook)

    def page_for_operators(request: Request, html: bytes) -> Reply:
        if access is not None and not access.admits(
            request.headers.raw, client=address(request.scope)
        ):
            headers = {**_PAGE_HEADERS, "www-authenticate": "Bearer"}
            return Reply(sign_in, HTTPStatus.UNAUTHORIZED, headers, _HTML)
        return Reply(html, headers=_PAGE_HEADERS, media_type=_HTML)

    async def get_asset(request: Request) -> Reply:
        name = request.path_params["name"]
        if request.path_params["digest"] != digest or name not in assets:
            raise HTTPException(HTTPStatus.NOT_FOUND)
        return Reply(assets[name], headers=_ASSET_HEADERS, media_type=_media_type(name))

    async def open_session(request: Request) -> Reply:
        require_same_origin(request.headers)
        asked = await read_json(request, _sign_in)
        if access is None or not access.knows(asked.token, client=address(request.scope)):
            raise Unauthorized("That is not the operators' token.")
        return _with_session(request, access.issue(), LIFETIME)

    async def end_session(request: Request) -> Reply:
        require_same_origin(request.headers)
        return _with_session(request, "", 0)

    return [
        Route("/dashboard", Endpoint(get_page), methods=["GET"]),
        Route(RUNBOOK, Endpoint(get_runbook), methods=["GET"]),
        Route("/dashboard/assets/{digest}/{name}", Endpoint(get_asset), methods=["GET"]),
        Route("/dashboard/stream", OperatorsOnly(stream, access), methods=["GET"]),
        Route("/dashboard/session", Endpoint(open_session), methods=["POST"]),
        Route("/dashboard/session", Endpoint(end_session), methods=["DELETE"]),
    ]


def _assets() -> dict[str, bytes]:
    folder = files("event_service.dashboard").joinpath("assets")
    return {entry.name: entry.read_bytes() for entry in folder.iterdir() if entry.is_file()}


def _fill(template: bytes, values: Mapping[str, str]) -> bytes:
    text = template.decode()
    for name, value in values.items():
        text = text.replace("{{" + name + "}}", escape(value))
    return text.encode()


def _media_type(name: str) -> str:
    return _MEDIA_TYPES[name.rpartition(".")[2]]


def _with_session(request: Request, session: str, lifetime: int) -> Reply:
    # Behind a trusted proxy that terminates TLS, this is the scheme that the proxy reports.
    secure = "; Secure" if request.scope["scheme"] == "https" else ""
    cookie = f"{COOKIE}={session}; Path=/; Max-Age={lifetime}; HttpOnly; SameSite=Strict{secure}"
    return Reply(b"{}", headers={"set-cookie": cookie})
