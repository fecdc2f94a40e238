"""What people ask of diagnosis, checked."""

from typing import Any, Final

from starlette.requests import Request

from lifesign.clock import EARLIEST, EpochMs, parse_timestamp
from lifesign.diagnosis.ledger import STATES, LedgerState
from lifesign.diagnosis.service import MINUTE_MS, Order
from lifesign.diagnosis.verification import Question
from lifesign.http.context import context_of
from lifesign.http.ok import Json, MalformedParameter, integer_of, read_object
from lifesign.telemetry.asked import MAX_MINUTES, storable

MAX_FINGERPRINTS: Final = 100
MAX_ENVIRONMENT: Final = 256
"""As long as a filter may be: it is part of the ledger's key, and PostgreSQL bounds those."""
_DEFAULT_MINUTES: Final = 60


async def order_of(request: Request) -> Order:
    """What is to be diagnosed; nothing said: the last hour. Raises InvalidJson, InvalidParameter, BodyTooLarge."""
    body = await read_object(request, is_required=False)
    minutes = _minutes(body)
    return Order(minutes, _until(request, body, minutes), _environment(body))


async def question_of(request: Request) -> Question:
    """What is to be verified. Raises InvalidJson, InvalidParameter, BodyTooLarge."""
    body = await read_object(request)
    if ("packet_id" in body) == ("fingerprints" in body):
        raise MalformedParameter("packet_id", "or fingerprints must be given, and not both")
    if "packet_id" in body and "environment" in body:
        raise MalformedParameter("environment", "must not be given with packet_id: a packet brings its own")
    minutes = _minutes(body)
    return Question(
        minutes,
        _text(body, "packet_id"),
        _fingerprints(body),
        _until(request, body, minutes),
        _environment(body),
    )


def state_of(request: Request) -> LedgerState | None:
    """The state that is asked for. Raises InvalidParameter."""
    asked = request.query_params.get("state")
    chosen = next((each for each in STATES if each == asked), None)
    if asked is not None and chosen is None:
        raise MalformedParameter("state", f"must be one of {', '.join(STATES)}")
    return chosen


def _minutes(body: Json) -> int:
    return integer_of(body, "since_minutes", 1, MAX_MINUTES, default=_DEFAULT_MINUTES)


def _until(request: Request, body: Json, minutes: int) -> EpochMs | None:
    value = body.get("until")
    if value is None:
        return None
    try:
        until = parse_timestamp(value)
    except ValueError as error:
        raise MalformedParameter("until", str(error)) from None
    # The end of a window that was just read is a millisecond ahead, and may be asked for again.
    if until > context_of(request).now() + 1:
        raise MalformedParameter("until", "must not be in the future")
    # Two windows lie before it, and no time before year 1 can be written down.
    if until - 2 * minutes * MINUTE_MS < EARLIEST:
        raise MalformedParameter("until", "must leave room for two windows since the beginning of year 1")
    return until


def _text(body: Json, name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise MalformedParameter(name, "must be a text")
    return None if value is None else storable(value)


def _environment(body: Json) -> str | None:
    environment = _text(body, "environment")
    # No record has an empty one, and the ledger's entries without a filter have it for their key.
    if environment == "":
        raise MalformedParameter("environment", "must not be empty; leave it out for records of any")
    if environment is not None and len(environment) > MAX_ENVIRONMENT:
        raise MalformedParameter("environment", f"must be at most {MAX_ENVIRONMENT} characters long")
    return environment


def _fingerprints(body: Json) -> tuple[str, ...]:
    value: Any = body.get("fingerprints", [])  # Any: JSON of whoever sent it
    is_good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    if not is_good or ("fingerprints" in body and not 1 <= len(value) <= MAX_FINGERPRINTS):
        raise MalformedParameter("fingerprints", f"must be a list of 1 to {MAX_FINGERPRINTS} texts")
    return tuple(dict.fromkeys(storable(each) for each in value))
