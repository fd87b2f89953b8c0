import html
import re
from typing import Any

import aiohttp
import jsonschema
import pytest

from event_service.problems import ROWS
from event_service.routes.openapi import openapi
from event_service.routes.problem_guide import GUIDE

from .conftest import Start

pytestmark = pytest.mark.anyio

Json = dict[str, Any]
# The dashboard's own parts, of use to its page alone, and what browsers ask for by themselves.
INTERNAL = ("/dashboard/", "/favicon.ico")


@pytest.fixture
def document() -> Json:
    return openapi(
        release="1.0.0", operations=True, guarded=True, api_key_header="X-Api-Key", outbox=True
    )


def operations(document: Json) -> list[Json]:
    return [operation for path in document["paths"].values() for operation in path.values()]


def resolve(document: Json, node: Json) -> Json:
    if "$ref" not in node:
        return node
    found: Any = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


async def get_json(client: aiohttp.ClientSession, path: str) -> Json:
    async with client.get(path) as response:
        assert response.status == 200
        assert response.content_type == "application/json"
        decoded: Json = await response.json()
        return decoded


async def test_every_documented_operation_exists_and_no_other_method_does(start: Start):
    async with start() as client:
        document = await get_json(client, "/openapi.json")
        for path, methods in document["paths"].items():
            example = path.replace("{id}", "1").replace("{slug}", "circuit-open")
            response = await client.request("DELETE", example)

            assert response.status == 405, path
            allowed = set(response.headers["Allow"].replace(" ", "").split(","))
            assert allowed - {"HEAD"} == {method.upper() for method in methods}, path


async def test_every_route_is_documented(start: Start, monkeypatch: pytest.MonkeyPatch):
    routers: list[Any] = []
    router = "event_service.app.Router"
    original = __import__("starlette.routing", fromlist=["Router"]).Router
    monkeypatch.setattr(router, lambda **kw: routers.append(original(**kw)) or routers[-1])
    async with start() as client:
        document = await get_json(client, "/openapi.json")

    paths = {re.sub(r":\w+}", "}", route.path) for route in routers[0].routes}
    assert {path for path in paths if not path.startswith(INTERNAL)} == set(document["paths"])


def test_every_parameter_body_response_and_problem_has_a_fitting_example(document: Json):
    schemas = {"components": document["components"]}
    checked = 0
    for operation in operations(document):
        nodes = [resolve(document, each) for each in operation.get("parameters", [])]
        replies = list(operation["responses"].values())
        for reply in replies:
            nodes += [resolve(document, each) for each in reply["headers"].values()]
        for described in [*replies, operation.get("requestBody", {"content": {}})]:
            nodes += described["content"].values()
        for node in nodes:
            examples = [
                resolve(document, example)["value"] for example in node.get("examples", {}).values()
            ] or [node["example"]]
            for example in examples:
                jsonschema.validate(
                    example, schemas | node["schema"], jsonschema.Draft202012Validator
                )
                checked += 1
    assert checked > 100


def test_every_problem_of_the_table_is_documented_and_guided(document: Json):
    slugs = {row.slug for row in ROWS}

    assert set(document["components"]["examples"]) == slugs
    assert set(GUIDE) == slugs


async def test_the_type_of_a_problem_leads_to_a_page_about_it(start: Start):
    async with start() as client:
        problem = await (await client.get("/api/getEventsByUserId/99")).json()

        page = await client.get(problem["type"])

        assert page.status == 200
        assert page.content_type == "text/html"
        assert problem["title"] in await page.text()
        for slug, guide in GUIDE.items():
            text = await (await client.get(f"/problems/{slug}")).text()
            assert html.escape(guide.advice.split("`")[0]) in text
        assert (await client.get("/problems/nonsense")).status == 404


async def test_the_page_names_every_operation_and_needs_nothing_from_elsewhere(start: Start):
    async with start() as client:
        document = await get_json(client, "/openapi.json")

        response = await client.get("/docs")

        text = await response.text()
        for path in document["paths"]:
            assert f"<code>{path}</code>" in text
        origin = str(client._base_url).rstrip("/")
        assert f"curl {origin}/api/getUsers" in text
        assert not re.findall(r"""(?:src|href)=["']?(?:https?:)?//""", text)
        policy = response.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert policy.count("sha256-") == 2


@pytest.mark.parametrize("host", ["<b>evil</b>", "$(reboot)", "a b"])
async def test_a_host_that_is_none_gets_into_no_command(start: Start, host: str):
    async with start() as client:
        response = await client.get("/docs", headers={"Host": host})
        text = await response.text()

    assert host not in text


async def test_the_page_shows_the_fields_of_a_body_with_their_bounds(start: Start):
    async with start() as client:
        text = await (await client.get("/docs")).text()

    shown = dict(
        re.findall(r"<tr><th><code>(\w+)</code><td class=quiet>(.+?)(?=<tr>|</table>)", text)
    )
    assert shown["title"].startswith("required")
    assert "1 to 200 characters" in shown["title"]
    assert shown["description"].startswith("optional")
    assert "up to 2000 characters without NUL or null" in shown["description"]
    assert shown["userId"].startswith("required")


async def test_the_page_lists_the_problems_by_their_status(start: Start):
    async with start() as client:
        text = await (await client.get("/docs")).text()

    statuses = re.findall(r"<tr><th>(\d+)<td>", text.partition("<h2>Problems</h2>")[2])
    assert len(statuses) > 15
    assert statuses == sorted(statuses)


async def test_operators_paths_are_documented_as_they_are_guarded(start: Start):
    async with start(env="production") as client:
        assert "/metrics" not in (await get_json(client, "/openapi.json"))["paths"]
    async with start(env="production", ops_token="secret-token-of-operators") as client:
        metrics = (await get_json(client, "/openapi.json"))["paths"]["/metrics"]["get"]
        assert metrics["security"] == [{"operator": []}]
        assert "401" in metrics["responses"]
    async with start() as client:
        metrics = (await get_json(client, "/openapi.json"))["paths"]["/metrics"]["get"]
        assert "security" not in metrics
