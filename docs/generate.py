"""`make docs`: generates the pages about API and configuration, and the run-book, from the code."""

import json
import re
from collections.abc import Container, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from event_service.routes.openapi import openapi
from event_service.routes.problem_guide import GUIDE
from event_service.settings import (
    DATABASE_CONCURRENCY,
    HTTP_CONCURRENCY,
    PREFIX,
    UPSTREAM_TIMEOUT,
    Settings,
)

from .when_to_turn import WHEN

HERE = Path(__file__).parent
NOTE = "<!-- Written by `make docs`; change the code instead. -->"

API_INTRODUCTION = (
    "A running service serves this as [`/openapi.json`](http://127.0.0.1:3000/openapi.json) and as "
    "an interactive page at [`/docs`](http://127.0.0.1:3000/docs), and has a page for each problem "
    "under `/problems/`. In production the operations marked with a key need "
    "`Authorization: Bearer` with the token in `EVENT_SERVICE_OPS_TOKEN`; without that setting "
    "they do not exist."
)
CONFIGURATION_INTRODUCTION = f"""\
Every setting is an environment variable that begins with `{PREFIX}`. If any is wrong or unknown, the service does not start, and one message lists every fault: the accepted values, the given value, and the nearest name of an unknown one. Secrets are never shown. `serve` and `dev` also accept the options `--host`, `--port` and `--upstream-url`.

In development `.env` in the working directory is read, too. Environment variables override it, even empty ones: an empty variable means the default. The file is UTF-8 with one `NAME=value` per line. Quote a value that has spaces at its ends, ` #` or line breaks; `${{NAME}}` is replaced by another variable. A line that cannot be read is a fault. The file cannot choose production or testing, because these do not read it.

Kubernetes generates variables for each Service of a namespace; for one named `event-service` they begin with `{PREFIX}` (`{PREFIX}PORT=tcp://…`). The service ignores them and logs a line; `enableServiceLinks: false` in the pod's spec prevents them.

Some defaults depend on other settings: the timeout of an attempt is at most 0.9 of the request's deadline. Combinations that cannot work are refused, such as a timeout that is not below the deadline, or settings of HTTP together with a database."""

# Where the default is more than a value.
DEFAULTS = {
    "upstream_url": "the mock's, `http://127.0.0.1:4010`",
    "upstream_paths": "the mock's",
    "upstream_timeout": f"`{UPSTREAM_TIMEOUT:g}`",
    "upstream_concurrency": f"`{HTTP_CONCURRENCY}`; of a database `{DATABASE_CONCURRENCY}`",
}

Json = dict[str, Any]


RUNBOOK = HERE.parent / "service/src/event_service/dashboard/assets/runbook.html"
RUNBOOK_HEAD = """\
<!doctype html>
<!-- Written by `make docs` from docs/operations.md; change that instead. -->
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Run-book · Event Service</title>
<link rel="icon" href="{{assets}}/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="{{assets}}/base.css">
</head>
<body class="runbook">
<main>
<p><a href="/dashboard">Dashboard</a></p>
<h1>Run-book</h1>
"""
RUNBOOK_FOOT = """\
</main>
</body>
</html>
"""


def main() -> None:
    RUNBOOK.write_text(runbook_page())
    (HERE / "api.md").write_text(api_page())
    (HERE / "configuration.md").write_text(configuration_page())


def api_page() -> str:
    document = openapi(
        release=version("event-service"),
        operations=True,
        guarded=True,
        api_key_header="",
        outbox=True,
    )
    lines = [
        "# API",
        "",
        NOTE,
        "",
        document["info"]["description"],
        "",
        API_INTRODUCTION,
    ]
    for tag in document["tags"]:
        lines += ["", f"## {tag['name'].capitalize()}", "", f"{tag['description']}."]
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [tag["name"]]:
                    lines += _operation(document, path, method, operation)
    lines += [
        "",
        "## Problems",
        "",
        "| status | `type` | meaning | what to do |",
        "|---|---|---|---|",
    ]
    rows = []
    for slug, example in document["components"]["examples"].items():
        status = example["value"]["status"]
        rows.append(
            (
                status,
                f"| {status} | `/problems/{slug}` | {GUIDE[slug].meaning} | {GUIDE[slug].advice} |",
            )
        )
    lines += [row for _, row in sorted(rows)]
    first = document["components"]["examples"]["circuit-open"]["value"]
    lines += ["", "One in full:", "", *_fenced(first)]
    return "\n".join(lines) + "\n"


def runbook_page() -> str:
    """The run-book as the service shows it itself, when nothing else can be reached."""
    text = (HERE / "operations.md").read_text().partition("\n## Run-book\n")[2]
    text = re.split(r"^## ", text, maxsplit=1, flags=re.MULTILINE)[0]
    markdown = MarkdownIt("commonmark").enable("table")
    tokens = markdown.parse(text)
    anchors = set()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            anchors.add(anchor := _anchor(inline.content))
            token.tag = "h2"
            token.attrSet("id", anchor)
        elif token.type == "heading_close":
            token.tag = "h2"
    for inline in tokens:
        _keep_links(inline.children or [], anchors)
    rendered: str = markdown.renderer.render(tokens, markdown.options, {})
    return RUNBOOK_HEAD + rendered + RUNBOOK_FOOT


def _anchor(heading: str) -> str:
    """As GitHub makes them."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def _keep_links(tokens: Sequence[Token], anchors: Container[str]) -> None:
    """Links to other pages of the documents lead nowhere in the service."""
    kept = True
    for token in tokens:
        if token.type == "link_open":
            target = str(token.attrGet("href"))
            kept = target.startswith("http") or target.removeprefix("#") in anchors
        if token.type in {"link_open", "link_close"} and not kept:
            token.tag, token.attrs = "span", {}


def _operation(document: Json, path: str, method: str, operation: Json) -> list[str]:
    key = " 🔑" if "security" in operation else ""
    lines = ["", f"### {method.upper()} {path}{key}", "", f"{operation['summary']}."]
    if text := operation.get("description"):
        lines += ["", text]
    components = document["components"]
    named = [reference["$ref"].rpartition("/")[2] for reference in operation.get("parameters", ())]
    if named:
        lines += ["", "| parameter | in | |", "|---|---|---|"]
        for name in named:
            each = components["parameters"][name]
            lines.append(f"| `{name}` | {each['in']} | {each['description']} |")
    if body := operation.get("requestBody"):
        content = body["content"]["application/json"]
        lines += ["", f"Body: {body.get('description', '')}".rstrip().rstrip(":"), ""]
        name = content["schema"]["$ref"].rpartition("/")[2]
        lines += _fields(components["schemas"][name])
    reply = operation["responses"]["200"]
    for media_type, content in reply.get("content", {}).items():
        if media_type == "application/json" and "example" in content:
            lines += ["", "200:", "", *_fenced(content["example"])]
    slugs = [slug for status in operation["responses"].values() for slug in _slugs(status)]
    if slugs:
        lines += ["", "Problems: " + ", ".join(f"`{slug}`" for slug in slugs) + "."]
    return lines


def _slugs(response: Json) -> list[str]:
    return list(response.get("content", {}).get("application/problem+json", {}).get("examples", {}))


def _fields(schema: Json) -> list[str]:
    lines = ["| field | required | |", "|---|---|---|"]
    for name, field in schema["properties"].items():
        kinds = field.get("anyOf", [field])
        meaning = next((kind["description"] for kind in kinds if "description" in kind), "")
        meaning = meaning or " or ".join(f"`{value}`" for value in field.get("enum", ()))
        required = "yes" if name in schema.get("required", ()) else ""
        lines.append(f"| `{name}` | {required} | {meaning} |")
    return lines


def _fenced(value: object) -> list[str]:
    return ["```json", json.dumps(value, indent=2, ensure_ascii=False), "```"]


def configuration_page() -> str:
    lines = [
        "# Configuration",
        "",
        NOTE,
        "",
        CONFIGURATION_INTRODUCTION,
        "",
        "```sh",
        ". .venv/bin/activate                         # in a clone; else the environment that you installed into",
        "event-service check-config                  # the settings in effect, as a .env file, secrets masked",
        "EVENT_SERVICE_WORKERS=2 event-service check-config",
        "```",
        "",
        *settings_table(),
    ]
    lines += ["", "Tracing is switched on and set up by the standard `OTEL_*` variables; see "]
    lines[-1] += "[operations](operations.md#traces)."
    return "\n".join(lines) + "\n"


def settings_table() -> list[str]:
    lines = ["| variable | default | meaning | change it when |", "|---|---|---|---|"]
    for name, field in Settings.model_fields.items():
        meaning = " ".join((field.description or "").split())
        variable = f"`{PREFIX}{name.upper()}`"
        lines.append(f"| {variable} | {_default(name)} | {meaning} | {WHEN[name]} |")
    return lines


def _default(name: str) -> str:
    if name in DEFAULTS:
        return DEFAULTS[name]
    default = Settings.model_fields[name].default
    if default in ("", None, {}, []):
        return "none"
    if isinstance(default, bool):
        return f"`{str(default).lower()}`"
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


if __name__ == "__main__":
    main()
