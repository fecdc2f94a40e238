"""`/llms.txt`: what the API can do, told from the OpenAPI document as short plain text for programs that read."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

# Any, throughout: an OpenAPI document is JSON.
Document = Mapping[str, Any]

_ERRORS = """\
## Errors

Errors are JSON: `{"error": {"code", "message", "statusCode", "details"?}, "requestId", "timestamp"}`. 400 names every
faulty field in `details`; 401 no or bad key; 403 missing scope; 404 unknown; 409 in use; 429 and 503 say in
`Retry-After` when to try again. Calls of projects and telemetry answer `{"ok": false, "error", "message"}` instead."""


def llms_text(document: Document, further: str) -> str:
    """The operations of `document` by tag, each in one line, with an example of its body; and where to read on."""
    info = document["info"]
    parts = [f"# {info['title']}\n\n{info['description'].strip()}\n\nEvery detail: [/openapi.json](/openapi.json)."]
    for tag in document["tags"]:
        lines = "\n".join(_lines(document, tag["name"]))
        if lines:
            parts.append(f"## {tag['name']}\n\n{tag['description']}\n\n{lines}")
    return "\n\n".join([*parts, _ERRORS, further]) + "\n"


def _lines(document: Document, tag: str) -> Iterator[str]:
    for path, item in document["paths"].items():
        for verb, operation in item.items():
            if tag in operation["tags"]:
                told = [_sentence(operation), *_query(operation), *_body(document, operation)]
                yield f"- `{verb.upper()} {path}`: {' '.join(told)}"


def _sentence(operation: Document) -> str:
    return " ".join(operation["description"].split())


def _query(operation: Document) -> Iterator[str]:
    names = [f"`{each['name']}`" for each in operation.get("parameters", ()) if each["in"] == "query"]
    if names:
        yield f"Query: {', '.join(names)}."


def _body(document: Document, operation: Document) -> Iterator[str]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    schema = document["components"]["schemas"][content["schema"]["$ref"].rpartition("/")[2]]
    required = schema.get("required", ())
    names = [f"`{name}`{' (required)' if name in required else ''}" for name in schema["properties"]]
    yield f"Body: {', '.join(names)}."
    for example in [*content.get("examples", {}).values()][:1]:
        yield f"Example: `{json.dumps(example['value'])}`."
