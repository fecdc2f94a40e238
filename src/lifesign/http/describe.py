"""What `/openapi.json` says of an operation: bodies, answers and errors, told once beside the route."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

_REF = "#/components/schemas/{model}"

# Any, throughout: OpenAPI fragments are JSON.
Schema = Mapping[str, Any]

_bodies: set[type[BaseModel]] = set()


class ErrorDetail(BaseModel):
    """What is wrong with an error's request."""

    code: str = Field(examples=["BAD_REQUEST"])
    message: str = Field(examples=["Invalid request: name: is required"])
    statusCode: int = Field(examples=[400])
    details: Any = Field(default=None, description="Faults by field, missing scopes, users of an object, or its state.")


class Error(BaseModel):
    """The error envelope of the Heartbeats API."""

    error: ErrorDetail
    requestId: str
    timestamp: str


_ERRORS = {
    400: "Something in the request is wrong; `details` names the fields.",
    401: "No key, or one that is unknown, revoked or expired.",
    403: "The key lacks a scope, or a limit of the project is reached.",
    404: "No such object in this project.",
    409: "The object is in use; `details.users` lists by whom.",
    413: "The body is larger than 262,144 bytes.",
    429: "Too many requests; see the header `Retry-After`.",
    500: "A fault of the server; `requestId` is in its log.",
    503: "The storage did not take it; nothing was written. Try again after `Retry-After` seconds.",
}
PAGING: tuple[Schema, ...] = (
    {
        "name": "limit",
        "in": "query",
        "description": "Rows per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "`nextCursor` of the page before; opaque.",
        "schema": {"type": "string"},
    },
)
FORCE: Schema = {
    "name": "force",
    "in": "query",
    "description": "`true`: remove it from everything that uses it first.",
    "schema": {"type": "boolean", "default": False},
}


def operation(
    operation_id: str,
    *,
    answer: tuple[int, type[BaseModel] | None],
    errors: Sequence[int] = (),
    body: type[BaseModel] | None = None,
    is_body_required: bool = True,
    parameters: Sequence[Schema] = (),
) -> dict[str, Any]:
    """Keyword arguments of a FastAPI route. 401, 403, 500 and 503 go without saying; a body adds 400 and 413."""
    status, model = answer
    statuses = {401, 403, 500, 503, *errors, *({400, 413} if body else ())}
    responses: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {}}
    responses[status]["description"] = "Done." if model is None else "As asked."
    responses |= {code: {"model": Error, "description": _ERRORS[code]} for code in sorted(statuses)}
    extra: dict[str, Any] = {"security": [{"BearerAuth": []}]}
    if parameters:
        extra["parameters"] = list(parameters)
    if body is not None:
        _bodies.add(body)
        schema = {"$ref": _REF.format(model=body.__name__)}
        extra["requestBody"] = {"required": is_body_required, "content": {"application/json": {"schema": schema}}}
    return {
        "operation_id": operation_id,
        "status_code": status,
        "response_class": Response,
        "response_model": None,
        "responses": responses,
        "openapi_extra": extra,
    }


def path_item_of(
    operation_arguments: Mapping[str, Any],
    *,
    summary: str,
    description: str,
    tags: list[str],
    models: set[type[BaseModel]],
) -> dict[str, Any]:
    """An OpenAPI operation object for a route that FastAPI does not know (hot routes); notes the models it names."""
    extra = operation_arguments["openapi_extra"]
    responses: dict[str, Any] = {}
    for status, response in operation_arguments["responses"].items():
        entry: dict[str, Any] = {"description": response["description"]}
        if model := response.get("model"):
            models.add(model)
            entry["content"] = {"application/json": {"schema": {"$ref": _REF.format(model=model.__name__)}}}
        responses[str(status)] = entry
    told = {
        "operationId": operation_arguments["operation_id"],
        "summary": summary,
        "description": description,
        "tags": tags,
    }
    return {**told, **extra, "responses": responses}


def component_schemas(further: set[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of every described request body, and of `further` models."""
    models = sorted(_bodies | further, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: dict[str, Any] = definitions.get("$defs", {})
    return schemas
