"""HTTP of self-service keys. Who calls with one is known by `auth.vitals`."""

from collections.abc import Mapping
from typing import Any, cast

import orjson
import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.vitals import rules as key_rules
from lifesign.auth.vitals import service as keys
from lifesign.auth.vitals.rules import Wish, WishRefused
from lifesign.auth.vitals.schemas import MAX_BODY_BYTES, Json, vitals_operation
from lifesign.auth.vitals.service import VitalsKeyring, vitals_caller
from lifesign.http.answers import json_answer
from lifesign.http.body import read_body
from lifesign.http.context import context_of
from lifesign.http.peer import network_of
from lifesign.usage import schemas, service
from lifesign.usage.log import UsageLog

log = structlog.get_logger("lifesign.usage")

router = APIRouter(tags=["Vitals keys"])

_MADE = 201
_NO_STORE = {"Cache-Control": "no-store"}


def log_of(request: Request) -> UsageLog:
    """The log of requests of this node."""
    return cast("UsageLog", request.app.state.usage)


def keyring_of(request: Request) -> VitalsKeyring:
    """Who knows the callers of the Vitals API on this node."""
    return cast("VitalsKeyring", request.app.state.vitals_keyring)


def good(body: Json, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` with `"success":true`."""
    return json_answer({"success": True, **body}, status, headers)


@router.post(
    "/api/keys",
    **vitals_operation(
        "requestApiKey",
        answer=(_MADE, schemas.MadeVitalsKeyAnswer),
        body=schemas.WantedKey,
        examples=schemas.WANTED_KEYS,
        errors=(429,),
        security=None,
    ),
)
async def request_key(request: Request) -> Response:
    """Take a key for the Vitals API. Nobody has to agree, and no mail is sent; it works at once."""
    wish = await _wish(request)
    context = context_of(request)
    key, made = await context.db.write(
        service.take_key, wish, network_of(request), limit=context.settings.keys_per_address_per_hour, now=context.now()
    )
    log.info("vitals_key.made", key_id=key.id)
    return good({"api_key": schemas.made_key(key, made)}, _MADE, _NO_STORE)


async def _wish(request: Request) -> Wish:
    """What the body wants, whatever its Content-Type says. Raises BodyTooLarge, WishRefused."""
    raw = await read_body(request, MAX_BODY_BYTES)
    try:
        body: Any = orjson.loads(raw)  # Any: JSON of the caller
    except orjson.JSONDecodeError:
        body = None
    if not isinstance(body, dict):
        raise WishRefused("Request body must be a JSON object")
    return key_rules.wish_in(body)


@router.get("/api/keys/me", **vitals_operation("readOwnVitalsKey", answer=(200, schemas.OwnVitalsKeyAnswer)))
async def read_own_key(request: Request) -> Response:
    """Read the key that asks, and how often it was used. The key itself is never shown again."""
    caller = await vitals_caller(request)
    await log_of(request).settle()
    key = await context_of(request).db.read(keys.own_key, caller)
    return good({"api_key": schemas.own_key(key)}, headers=_NO_STORE)


@router.post("/api/keys/me/rotate", **vitals_operation("rotateVitalsKey", answer=(200, schemas.MadeVitalsKeyAnswer)))
async def rotate_key(request: Request) -> Response:
    """Replace the key that asks: the same id, and nothing else of it changes. The old one ends at once."""
    caller = await vitals_caller(request)
    key, made = await context_of(request).db.write(keys.rotate, caller)
    keyring_of(request).forget()
    log.info("vitals_key.replaced", key_id=key.id)
    return good({"api_key": schemas.made_key(key, made)}, headers=_NO_STORE)


@router.delete("/api/keys/me", **vitals_operation("revokeVitalsKey", answer=(200, schemas.Revoked)))
async def revoke_own_key(request: Request) -> Response:
    """Revoke the key that asks. It still counts among those that its address may have."""
    caller = await vitals_caller(request)
    context = context_of(request)
    await context.db.write(keys.revoke_own, caller, context.now())
    keyring_of(request).forget()
    log.info("vitals_key.revoked", key_id=caller.key_id, by="owner")
    return good({})
