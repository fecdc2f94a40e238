"""What `/openapi.json` says of an operation: bodies, answers and errors, told once beside the route."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema
from starlette.responses import Response

from lifesign.http.fields import example_id, optional

_REF = "#/components/schemas/{model}"

# Any, throughout: OpenAPI fragments are JSON.
Schema = Mapping[str, Any]

_bodies: set[type[BaseModel]] = set()
_BAD_REQUEST = 400
_FRAMEWORKS_422 = "HTTPValidationError"
EXAMPLE_REQUEST_ID = "req_5f0c8d3b9a7e4f21b6c0d9e8f7a6b5c4"


class ErrorDetail(BaseModel):
    """What is wrong with the request."""

    code: str = Field(description="A word for programs.")
    message: str = Field(description="A sentence for people.")
    statusCode: int = Field(description="The status of the answer.")
    details: Any = optional("Faults by field, missing scopes, users of an object, or its state.")


class Error(BaseModel):
    """The error envelope of the Heartbeats API."""

    error: ErrorDetail
    requestId: str = Field(description="The answer's `X-Request-Id`; the server's log has it too.")
    timestamp: datetime


@dataclass(frozen=True, slots=True)
class Refusal:
    """How an error status is described. `code`, `message` and `details` make the example."""

    description: str
    code: str
    message: str
    details: Any = None
    header: str | None = None
    model: type[BaseModel] | None = None
    """Of the body, where it is not that of the other errors of its API."""


@dataclass(frozen=True, slots=True)
class Envelope:
    """How an API answers errors: the model of their bodies, what each status means, and an example of it."""

    model: type[BaseModel]
    refusals: Mapping[int, Refusal]
    example: Callable[[int, Refusal], Schema]


_ERRORS = {
    400: Refusal(
        "Something in the request is wrong; `details` names each field.",
        "BAD_REQUEST",
        "Invalid request: name is required",
        [{"field": "name", "message": "is required"}],
    ),
    401: Refusal(
        "No key, or one that is unknown, revoked or expired.",
        "UNAUTHORIZED",
        "Missing or invalid API key",
        header="WWW-Authenticate",
    ),
    403: Refusal(
        "The key lacks a scope, or a limit of the project is reached.",
        "FORBIDDEN",
        "Missing scope: policies:write",
        {"scopes": ["policies:write"]},
    ),
    404: Refusal("No such object in this project.", "NOT_FOUND", "Resource not found"),
    409: Refusal(
        "The object is in use; `details.users` lists by whom, `force=true` takes it away from them.",
        "CONFLICT",
        "Policy is in use",
        {"users": [{"type": "heartbeat", "id": example_id("hb"), "name": "Nightly Export"}], "total": 1},
    ),
    413: Refusal("The body is larger than 262,144 bytes.", "PAYLOAD_TOO_LARGE", "Request body is too large"),
    429: Refusal(
        "Too many requests; wait for the seconds in `Retry-After`.",
        "RATE_LIMITED",
        "Too many requests",
        header="Retry-After",
    ),
    500: Refusal("A fault of the server; `requestId` is in its log.", "INTERNAL_ERROR", "Internal server error"),
    503: Refusal(
        "The storage did not take it and nothing was written: try again after `Retry-After` seconds.",
        "UNAVAILABLE",
        "Storage is not available, try again",
        header="Retry-After",
    ),
}
_INVALID_STATE = Refusal(
    "The object is in a state that does not allow this.",
    "INVALID_STATE",
    "Heartbeat is active, not firing",
    {"status": "active"},
)
_HEADERS: Mapping[str, Schema] = {
    "WWW-Authenticate": {"description": "The scheme.", "required": True, "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds.", "required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}},
}
_PATH_PARAMETERS = {
    "heartbeats": "Id (`hb_...`) or slug, like `nightly-export`.",
    "policies": "Id, `pol_...`.",
    "channels": "Id, `ch_...`.",
    "incidents": "Id, `inc_...`.",
    "maintenance": "Id, `mw_...`.",
    "notifications": "Id, `ntf_...`.",
    "keys": "Id, `key_...`.",
    "sessions": "Id of a session, another id that its records have, or a trace id.",
    "systems": "Id (a UUID) or key (`SYS-...`), in any case.",
}
ABOUT = """\
Knows whether everything you run is alive, and makes sure somebody finds out when it is not.

A **heartbeat** is something that must check in. When its **deadline** and its **grace** pass without a check-in, an
**incident** opens and the steps of its **policy** send messages to **channels**, until it checks in again or somebody
acknowledges.

Send `Authorization: Bearer <key>`; the first start of the server prints an admin key. A `2xx` answer to a write is
sent after the write is on disk. Every answer carries `X-Request-Id`; send your own and it is used. Lists take `limit`
(1-1000, default 100) and `cursor`, which is the `nextCursor` of the page before. Members without a value are omitted,
never null. Times are RFC 3339: with `Z` and milliseconds in answers, with any offset in requests.

Calls of projects and telemetry take **spans** of OpenTelemetry and show what AI agents did as **sessions**. They have
two keys of their own, which `POST /v1/provision` makes: no admin key is needed. There pages go on by `next_cursor`,
`limit` is that of each call, and what has no value is null.
"""
TAGS: tuple[dict[str, Any], ...] = (
    {"name": "Heartbeats", "description": "What must check in, its check-ins and its history."},
    {"name": "Runs", "description": "Executions of a watched job: start, progress within a lease, the end."},
    {"name": "Maintenance", "description": "Times in which silence is expected."},
    {"name": "Policies", "description": "The steps to take when a heartbeat fires: wait, then tell channels."},
    {"name": "Channels", "description": "Where messages go: e-mail, Slack, webhooks, PagerDuty, SMS."},
    {"name": "Incidents", "description": "Outages, and every message about them with every attempt to deliver it."},
    {"name": "Settings", "description": "What holds for the whole project, such as who is told when nobody else is."},
    {"name": "Systems", "description": "Machines with credentials, their liveness and their inventories."},
    {"name": "Machines", "description": "What a system asks with its own credentials, `Basic`: id or key, and secret."},
    {"name": "Projects", "description": "Projects that make themselves, with a producer key and an agent key each."},
    {"name": "Telemetry", "description": "Spans of OpenTelemetry in; records, sessions and overviews out."},
    {
        "name": "Diagnosis",
        "description": "What stands out in telemetry, by fixed rules, with evidence; and whether it is over.",
    },
    {"name": "Vitals", "description": "A pulse from a camera, or the reason why there is none; streams, measurements."},
    {"name": "Vitals keys", "description": "Keys of the Vitals API, which people take themselves."},
    {"name": "Vitals dashboard", "description": "What the Vitals API is asked and answers, over the whole server."},
    {"name": "Bots", "description": "AI agents that run a prompt on a schedule, which this API calls a heartbeat."},
    {"name": "Keys", "description": "API keys and what they may do."},
    {"name": "Server", "description": "How the server itself does; no key needed."},
)
FILTER_TEXT: Schema = {"type": "string", "minLength": 1, "pattern": r"^[^\x00]+$"}
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
    envelope: Envelope | None = None,
    never: Sequence[int] = (),
    security: str | None = "BearerAuth",
    examples: Mapping[str, Schema] | None = None,
    links: Mapping[str, Sequence[str]] | None = None,
    refuses_states: bool = False,
    also: Sequence[int] = (),
) -> dict[str, Any]:
    """Keyword arguments of a FastAPI route. 401, 403, 500 and 503 go without saying; a body adds 400 and 413.

    examples: bodies to paste, by what they show.
    links: from a path parameter and where the answer has its value (`idOrSlug=id`), to the operations that take it.
    refuses_states: it answers 400 INVALID_STATE to an object that is not in the right state.
    also: further statuses with the same body. never: statuses that do not go without saying here.
    envelope: how it answers errors, if not as the Heartbeats API does. security: None: it needs no key.
    """
    status, model = answer
    statuses = {401, 403, 500, 503, *errors, *({400, 413} if body else ()), *({400} if refuses_states else ())}
    statuses -= set(never)
    responses: dict[int | str, dict[str, Any]] = {status: {"model": model} if model else {}}
    responses[status]["description"] = "Done." if model is None else inspect.cleandoc(model.__doc__ or "")
    responses |= {each: dict(responses[status]) for each in also}
    if links:
        responses[status]["links"] = _links(links)
    responses |= {
        code: _error_response(code, envelope or _HEARTBEATS, refuses_states=refuses_states) for code in sorted(statuses)
    }
    extra: dict[str, Any] = {"security": [] if security is None else [{security: []}]}
    if parameters:
        extra["parameters"] = list(parameters)
    if body is not None:
        _bodies.add(body)
        content: dict[str, Any] = {"schema": {"$ref": _REF.format(model=body.__name__)}}
        if examples:
            content["examples"] = {summary: {"summary": summary, "value": each} for summary, each in examples.items()}
        extra["requestBody"] = {"required": is_body_required, "content": {"application/json": content}}
    return {
        "operation_id": operation_id,
        "status_code": status,
        "response_class": Response,
        "response_model": None,
        "responses": responses,
        "openapi_extra": extra,
    }


def _error_response(status: int, envelope: Envelope, *, refuses_states: bool) -> dict[str, Any]:
    refusal = envelope.refusals[status]
    shown = {refusal.code: refusal}
    if refuses_states and status == _BAD_REQUEST:
        shown[_INVALID_STATE.code] = _INVALID_STATE
    examples = {
        code: {"summary": each.message, "value": envelope.example(status, each)} for code, each in shown.items()
    }
    response: dict[str, Any] = {
        "model": refusal.model or envelope.model,
        "description": " ".join(each.description for each in shown.values()),
        "content": {"application/json": {"examples": examples}},
    }
    if refusal.header:
        response["headers"] = {refusal.header: _HEADERS[refusal.header]}
    return response


def _heartbeats_error(status: int, refusal: Refusal) -> dict[str, Any]:
    error = {"code": refusal.code, "message": refusal.message, "statusCode": status}
    if refusal.details is not None:
        error["details"] = refusal.details
    return {"error": error, "requestId": EXAMPLE_REQUEST_ID, "timestamp": "2026-03-08T07:00:00.000Z"}


_HEARTBEATS = Envelope(Error, _ERRORS, _heartbeats_error)


def _links(links: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for where, operation_ids in links.items():
        parameter, _, member = where.partition("=")
        for operation_id in operation_ids:
            found[operation_id] = {
                "operationId": operation_id,
                "parameters": {parameter: f"$response.body#/{member}"},
            }
    return found


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
        entry |= {key: response[key] for key in ("headers", "links") if key in response}
        if model := response.get("model"):
            models.add(model)
            told_already = response.get("content", {}).get("application/json", {})
            schema = {"$ref": _REF.format(model=model.__name__)}
            entry["content"] = {"application/json": {"schema": schema, **told_already}}
        responses[str(status)] = entry
    told = {
        "operationId": operation_arguments["operation_id"],
        "summary": summary,
        "description": description,
        "tags": tags,
    }
    return {**told, **extra, "responses": responses}


def correct(paths: Mapping[str, Any]) -> None:
    """Put right what the framework does not know: what parameters in paths mean, and that it invents a 422."""
    for path, item in paths.items():
        noun = f"{path}//".split("/")[2]
        for described in item.values():
            if _FRAMEWORKS_422 in str(described["responses"].get("422")):
                del described["responses"]["422"]
            for response in described["responses"].values():
                _with_nulls(response)
            for parameter in described.get("parameters", ()):
                if parameter["in"] == "path":
                    parameter["description"] = _PATH_PARAMETERS.get(noun, "Id of the object.")
                    if parameter["name"] == "packet_id":
                        # Beside them stand the names of what is done, where `GET` is no method.
                        parameter["schema"]["pattern"] = "^pkt_"


def _with_nulls(response: dict[str, Any]) -> None:
    """Give back to examples the `data` that is null, which the framework takes for absent."""
    for example in response.get("content", {}).get("application/json", {}).get("examples", {}).values():
        if {"code", "message"} <= set(example["value"]) and "ok" not in example["value"]:
            example["value"].setdefault("data", None)


def without_framework_errors(schemas: Mapping[str, Any]) -> dict[str, Any]:
    """`schemas` without those of the framework's own 422."""
    return {name: schema for name, schema in schemas.items() if name not in {"HTTPValidationError", "ValidationError"}}


def component_schemas(further: set[type[BaseModel]]) -> dict[str, Any]:
    """The schemas of every described request body, and of `further` models."""
    models = sorted(_bodies | further, key=lambda model: model.__name__)
    _, definitions = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    schemas: dict[str, Any] = definitions.get("$defs", {})
    return schemas
