"""HTML pages for the OpenAPI document and the problems; they load nothing from other servers."""

import base64
import hashlib
import json
import re
import shlex
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from typing import Any

from event_service.problems import Problem
from event_service.routes.problem_guide import Guide

Json = dict[str, Any]

_folder = files("event_service.routes").joinpath("docs_page")
_STYLE = _folder.joinpath("style.css").read_text()
_SCRIPT = _folder.joinpath("try_it.js").read_text()


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


PAGE_HEADERS = {
    # Allow only the page's own style and script, by hash, and requests to this server.
    "content-security-policy": (
        f"default-src 'none'; style-src {_hash(_STYLE)}; script-src {_hash(_SCRIPT)}; "
        "connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "cache-control": "no-cache",
}


# The server in example commands if neither the request nor a script tells the real one.
ANY_ORIGIN = "http://127.0.0.1:3000"


def docs_page(document: Json) -> bytes:
    """The page. Its commands name `ANY_ORIGIN`; its script replaces that with the page's origin."""
    info = document["info"]
    parts = [
        f"<h1>{escape(info['title'])} <span class=quiet>{escape(info['version'])}</span></h1>",
        _paragraphs(info["description"]),
        '<p>For programs: <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).</p>',
    ]
    for tag in document["tags"]:
        parts.append(f"<h2>{escape(tag['description'])}</h2>")
        parts += [
            _operation(document, method, path, operation)
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
            if tag["name"] in operation["tags"]
        ]
    parts.append("<h2>Problems</h2><table>")
    examples = document["components"]["examples"].items()
    for slug, example in sorted(examples, key=lambda each: (each[1]["value"]["status"], each[0])):
        parts.append(
            f'<tr><th>{example["value"]["status"]}<td><a href="/problems/{slug}">{slug}</a>'
            f"<td>{escape(example['summary'])}"
        )
    parts.append("</table>")
    return _html(f"{info['title']}: API", parts, script=True)


def home_page(document: Json) -> bytes:
    """Links for a person who opens `/`."""
    info, paths = document["info"], document["paths"]
    links = [
        ("/dashboard", "Dashboard", "live circuits, latencies and requests"),
        ("/docs", "API", "all operations, to read and to try"),
        ("/problems", "Problems", "all errors, what they mean and what to do"),
        ("/api/getUsers", "Users", "the users and the ids of their events"),
        ("/readyz", "Readiness", "whether the service can work, and the state of its circuits"),
        ("/metrics", "Metrics", "for Prometheus"),
        ("/openapi.json", "OpenAPI", "the API for programs"),
    ]
    parts = [
        f"<h1>{escape(info['title'])} <span class=quiet>{escape(info['version'])}</span></h1>",
        f"<p>{escape(info['summary'])}.</p><table class=fields>",
        *(
            f'<tr><th><a href="{path}">{name}</a><td>{text}'
            for path, name, text in links
            if path in paths
        ),
        "</table>",
    ]
    return _html(info["title"], parts)


def problems_page(problems: Iterable[Json]) -> bytes:
    parts = ["<h1>Problems</h1><p>What an error of this service means.</p><table>"]
    parts += [
        f'<tr><th>{each["status"]}<td><a href="{each["type"]}">{escape(each["title"])}</a>'
        f"<td>{_inline(each['meaning'])}"
        for each in problems
    ]
    parts.append('</table><p><a href="/docs">All operations</a></p>')
    return _html("Problems", parts)


def problem_page(problem: Problem, guide: Guide, example: Json) -> bytes:
    title = problem.row.title
    parts = [
        f"<p class=quiet>Problem · status {problem.row.status}</p><h1>{escape(title)}</h1>",
        f"<h2>What it means</h2>{_paragraphs(guide.meaning)}",
        f"<h2>What to do</h2>{_paragraphs(guide.advice)}",
        f"<h2>Example</h2>{_code(_pretty(example))}",
        '<p><a href="/docs">All operations</a> · <a href="/problems">all problems</a></p>',
    ]
    return _html(title, parts)


def _html(title: str, parts: Iterable[str], *, script: bool = False) -> bytes:
    page = [
        "<!doctype html><html lang=en><meta charset=utf-8>",
        '<meta name=viewport content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style><main>",
        *parts,
        "</main>",
        f"<script>{_SCRIPT}</script>" if script else "",
    ]
    return "".join(page).encode()


def _operation(document: Json, method: str, path: str, operation: Json) -> str:
    parameters = [_resolve(document, each) for each in operation.get("parameters", ())]
    body = operation.get("requestBody")
    example = body["content"]["application/json"]["example"] if body else None
    parts = [
        f"<details id={operation['operationId']}><summary>",
        f'<span class="method {method}">{method.upper()}</span><h3><code>{path}</code></h3>',
        f"<span class=quiet>{_inline(operation['summary'])}</span></summary><div>",
        _paragraphs(operation.get("description", "")),
        _curl(method, path, parameters, example, guarded="security" in operation),
    ]
    if parameters:
        parts.append("<h4>Parameters</h4><table class=fields>")
        for each in parameters:
            bounds = _bounds(each["schema"])
            text = each["description"] + (f" ({bounds})" if bounds != "string" else "")
            parts.append(_field(each["name"], each["in"], text))
        parts.append("</table>")
    if body:
        parts.append(_body(document, body))
    parts.append(_responses(operation["responses"]))
    if operation.get("security"):
        parameters.append({"name": "Authorization", "in": "header"})
    parts.append(_form(method, path, parameters, example))
    parts.append("</div></details>")
    return "".join(parts)


def _body(document: Json, body: Json) -> str:
    schema = _resolve(document, body["content"]["application/json"]["schema"])
    required = schema.get("required", ())
    parts = ["<h4>Body</h4>", _paragraphs(body.get("description", "")), "<table class=fields>"]
    for name, field in schema["properties"].items():
        need = "required" if name in required else "optional"
        parts.append(_field(name, need, field.get("description") or _bounds(field)))
    parts.append("</table>")
    return "".join(parts)


def _field(name: str, kind: str, text: str) -> str:
    return f"<tr><th><code>{escape(name)}</code><td class=quiet>{kind}<td>{_inline(text)}"


def _bounds(schema: Json) -> str:
    """What a value must be, in words: the schema's description if it has one."""
    if "description" in schema:
        return str(schema["description"])
    if "anyOf" in schema:
        return " or ".join(_bounds(each) for each in schema["anyOf"])
    if "enum" in schema:
        return "one of " + ", ".join(f"`{each}`" for each in schema["enum"])
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    words = []
    if most is not None:
        words.append(f"{least} to {most} characters" if least else f"at most {most} characters")
    if "pattern" in schema:
        words.append(f"matches `{schema['pattern']}`")
    if "default" in schema:
        words.append(f"`{json.dumps(schema['default'])}` if absent")
    return ", ".join([schema["type"], *words])


def _responses(responses: Json) -> str:
    parts = ["<h4>Responses</h4><table>"]
    for status, response in responses.items():
        media_type, content = next(iter(response["content"].items()))
        slugs = list(content.get("examples", ()))
        if slugs:
            links = ", ".join(f'<a href="/problems/{slug}">{slug}</a>' for slug in slugs)
            parts.append(f"<tr><th>{status}<td>{links}")
        else:
            shown = content["example"]
            text = _pretty(shown) if media_type == "application/json" else shown
            parts.append(f"<tr><th>{status}<td>{escape(response['description'])}{_code(text)}")
    parts.append("</table>")
    return "".join(parts)


def _form(method: str, path: str, parameters: Iterable[Json], body: Json | None) -> str:
    parts = [f'<h4>Try it</h4><form data-method="{method.upper()}" data-path="{path}">']
    for each in parameters:
        value = escape(str(each["example"])) if each.get("required") else ""
        parts.append(
            f'<label>{escape(each["name"])}<input name="{escape(each["name"])}" '
            f'data-in={each["in"]} value="{value}" autocomplete=off></label>'
        )
    if body is not None:
        text = escape(_pretty(body))
        parts.append(f"<label>body<textarea name=body rows=6>{text}</textarea></label>")
    parts.append("<button>Send</button><output></output></form>")
    return "".join(parts)


def _curl(
    method: str, path: str, parameters: Iterable[Json], body: Json | None, *, guarded: bool
) -> str:
    for each in parameters:
        path = path.replace(f"{{{each['name']}}}", str(each["example"]))
    options = ""
    if guarded:
        options += ' -H "Authorization: Bearer $EVENT_SERVICE_OPS_TOKEN"'
    if body is not None:
        options += " -H 'Content-Type: application/json' -d " + shlex.quote(json.dumps(body))
        if method != "post":
            options += f" -X {method.upper()}"
    return f"<pre tabindex=0 class=curl>{escape(f'curl {ANY_ORIGIN}{path}{options}')}</pre>"


def _resolve(document: Json, reference: Json) -> Json:
    if "$ref" not in reference:
        return reference
    found: Any = document
    for part in reference["$ref"].removeprefix("#/").split("/"):
        found = found[part]
    resolved: Json = found
    return resolved


def _paragraphs(text: str) -> str:
    return "".join(f"<p>{_inline(part)}</p>" for part in text.split("\n\n") if part)


def _inline(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _code(text: str) -> str:
    return f"<pre tabindex=0>{escape(text)}</pre>"


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False)
