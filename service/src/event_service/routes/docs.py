import re

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.http.endpoint import Endpoint, Reply
from event_service.routes.docs_html import ANY_ORIGIN, PAGE_HEADERS, Json, docs_page, problem_page
from event_service.routes.openapi_parts import PROBLEMS
from event_service.routes.problem_guide import GUIDE

_HTML = "text/html; charset=utf-8"
# A Host that needs no escaping in HTML or in a shell.
_HOST = re.compile(r"[A-Za-z0-9.:-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def docs_routes(document: Json) -> list[BaseRoute]:
    """The OpenAPI `document` as JSON and as a page, and a page for each problem type."""
    openapi_reply = Reply(msgspec.json.encode(document), headers={"cache-control": "no-cache"})
    page = docs_page(document)
    examples = document["components"]["examples"]
    problem_replies = {
        slug: Reply(
            problem_page(problem, GUIDE[slug], examples[slug]["value"]),
            headers=PAGE_HEADERS,
            media_type=_HTML,
        )
        for slug, (problem, _) in PROBLEMS.items()
    }

    async def openapi(_request: Request) -> Reply:
        return openapi_reply

    async def docs(request: Request) -> Reply:
        host = request.headers.get("host", "")
        origin = f"{request.url.scheme}://{host}" if _HOST.fullmatch(host) else ANY_ORIGIN
        body = page.replace(ANY_ORIGIN.encode(), origin.encode())
        return Reply(body, headers=PAGE_HEADERS, media_type=_HTML)

    async def problem(request: Request) -> Reply:
        reply = problem_replies.get(request.path_params["slug"])
        if reply is None:
            raise HTTPException(404)
        return reply

    return [
        Route("/openapi.json", Endpoint(openapi), methods=["GET"]),
        Route("/docs", Endpoint(docs), methods=["GET"]),
        Route("/problems/{slug}", Endpoint(problem), methods=["GET"]),
    ]
