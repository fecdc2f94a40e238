"""HTTP of the documents of the Telemetry API, which need no key."""

from typing import Any, Final

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.documents import texts
from lifesign.documents.shown import Contact
from lifesign.http.answers import json_answer
from lifesign.http.context import base_url, context_of

router = APIRouter(tags=["Server"])

_MARKDOWN: Final = "text/markdown; charset=utf-8"
_SCHEMA: Final = "application/schema+json"


def _told(kind: str) -> dict[str, Any]:
    """What the description says of a document that is no JSON of ours."""
    return {"response_class": Response, "responses": {200: {"content": {kind: {}}, "description": "The document."}}}


@router.get("/quickstart.md", operation_id="quickstart", **_told("text/markdown"))
async def quickstart(request: Request) -> Response:
    """From nothing to the first diagnosis, by curl."""
    return Response(texts.quickstart(base_url(request)), media_type=_MARKDOWN)


@router.get("/agents.md", operation_id="agents", **_told("text/markdown"))
async def agents(request: Request) -> Response:
    """Every route, code and limit of the Telemetry API, for programs that read."""
    return Response(texts.agents(base_url(request)), media_type=_MARKDOWN)


@router.get("/contact.json", operation_id="contact", response_model=Contact)
async def contact(request: Request) -> Response:
    """Whom to write to about this server."""
    settings = context_of(request).settings
    return json_answer(texts.contact(settings.contact_email, settings.contact_url, base_url(request)))


async def show_schema(request: Request) -> Response:
    """The JSON Schema (2020-12) of what answers hold."""
    name = request.url.path.removeprefix("/schema/").removesuffix(".json")
    return Response(orjson.dumps(texts.schema(name, base_url(request))), media_type=_SCHEMA)


for _name in texts.SCHEMAS:
    router.add_api_route(f"/schema/{_name}.json", show_schema, operation_id=f"schema-{_name}", **_told(_SCHEMA))
