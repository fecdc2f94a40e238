"""HTTP of the operator's commands about keys of the Vitals API, which only the operator's way in reaches."""

from typing import Annotated

import structlog
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from lifesign.auth.vitals import rules as key_rules
from lifesign.auth.vitals import service as keys
from lifesign.auth.vitals.rules import VitalsKeyNotFound, WishRefused
from lifesign.faults import Fault, InvalidInput
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.fields import Body, Integer
from lifesign.http.paging import page_body, page_of
from lifesign.usage import schemas
from lifesign.usage.key_routes import keyring_of, log_of

log = structlog.get_logger("lifesign.usage")

_MAX_ALLOWED = 10_000
# Of an id of the database, as decimal digits.
_MAX_DIGITS = 18


class Allowance(Body):
    """How many keys an address may have in its life."""

    email: str = Field()
    keys: Annotated[int, Integer(0, _MAX_ALLOWED)]


async def list_keys(request: Request) -> Response:
    """Every key, revoked ones too, oldest first."""
    page = page_of(request, _is_id)
    await log_of(request).settle()
    found = await context_of(request).db.read(keys.list_all, limit=page.limit + 1, after=int(page.after or 0))
    return json_answer(page_body("keys", found, page, key=lambda each: str(each.id), show=schemas.listed_key))


async def revoke_key(request: Request) -> Response:
    """Take a key back, from the next request on."""
    ref = str(request.path_params["id"])
    if not _is_id(ref):
        raise VitalsKeyNotFound
    context = context_of(request)
    await context.db.write(keys.revoke, int(ref), context.now())
    keyring_of(request).forget()
    log.info("vitals_key.revoked", key_id=int(ref), by="operator")
    return no_content()


async def allow_keys(request: Request) -> Response:
    """Let an address have more keys than others, or fewer."""
    body = await read_model(request, Allowance)
    try:
        email = key_rules.checked_email(body.email)
    except WishRefused as error:
        raise InvalidInput(Fault("email", "must be an e-mail address")) from error
    await context_of(request).db.write(keys.allow, email, body.keys)
    return json_answer({"email": key_rules.email_identity(email), "keys": body.keys})


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS


routes = [
    Route("/admin/vitals/keys", list_keys, methods=["GET"]),
    Route("/admin/vitals/keys/{id}", revoke_key, methods=["DELETE"]),
    Route("/admin/vitals/allowances", allow_keys, methods=["POST"]),
]
