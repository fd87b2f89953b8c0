"""The index pages `/` and `/problems`, and the icon."""

from collections.abc import Mapping
from importlib.resources import files
from operator import itemgetter

import msgspec
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.http.endpoint import Endpoint, Reply
from event_service.libs.media_types import preferred
from event_service.routes.docs_html import PAGE_HEADERS, Json, home_page, problems_page
from event_service.routes.problem_guide import GUIDE

_JSON, _HTML = "application/json", "text/html"
_LINKS = {
    "dashboard": "/dashboard",
    "docs": "/docs",
    "openapi": "/openapi.json",
    "problems": "/problems",
    "readiness": "/readyz",
    "liveness": "/livez",
    "metrics": "/metrics",
}
_ICON = files("event_service.routes").joinpath("docs_page/favicon.ico").read_bytes()


def home_routes(document: Json) -> list[BaseRoute]:
    """Index of what the OpenAPI `document` describes, as HTML for people and JSON for programs."""
    operations = [
        {"method": method.upper(), "path": path, "summary": operation["summary"]}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    index = {
        "name": document["info"]["title"],
        "version": document["info"]["version"],
        "links": {name: path for name, path in _LINKS.items() if path in document["paths"]},
        "operations": operations,
    }
    examples = document["components"]["examples"].items()
    problems = [
        {
            "type": f"/problems/{slug}",
            "title": example["value"]["title"],
            "status": example["value"]["status"],
            "meaning": GUIDE[slug].meaning,
        }
        for slug, example in examples
    ]
    problems.sort(key=itemgetter("status", "type"))
    icon = Reply(_ICON, headers={"cache-control": "max-age=86400"}, media_type="image/x-icon")

    async def favicon(_request: Request) -> Reply:
        return icon

    return [
        Route("/", _in_two_forms(index, home_page(document)), methods=["GET"]),
        Route("/problems", _in_two_forms(problems, problems_page(problems)), methods=["GET"]),
        Route("/favicon.ico", Endpoint(favicon), methods=["GET"]),
    ]


def _in_two_forms(data: object, page: bytes) -> Endpoint:
    """JSON, or the page for clients that prefer HTML, such as browsers."""
    shared: Mapping[str, str] = {"cache-control": "no-cache", "vary": "Accept"}
    replies = {
        _JSON: Reply(msgspec.json.encode(data), headers=shared),
        _HTML: Reply(
            page, headers={**PAGE_HEADERS, **shared}, media_type=f"{_HTML}; charset=utf-8"
        ),
    }

    async def answer(request: Request) -> Reply:
        accept = ",".join(request.headers.getlist("accept"))
        return replies[preferred(accept, [_JSON, _HTML])]

    return Endpoint(answer)
