import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import BaseRoute, Route

from event_service.http.endpoint import Endpoint, Reply
from event_service.routes.docs_html import PAGE_HEADERS, Json, docs_page, problem_page
from event_service.routes.openapi_parts import PROBLEMS
from event_service.routes.problem_guide import GUIDE

_HTML = "text/html; charset=utf-8"


def docs_routes(document: Json) -> list[BaseRoute]:
    """The OpenAPI `document` for programs and for people, and a page for each problem's type."""
    openapi_reply = Reply(msgspec.json.encode(document), headers={"cache-control": "no-cache"})
    docs_reply = Reply(docs_page(document), headers=PAGE_HEADERS, media_type=_HTML)
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

    async def docs(_request: Request) -> Reply:
        return docs_reply

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
