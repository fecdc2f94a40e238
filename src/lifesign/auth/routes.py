"""HTTP of keys."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth import schemas, service
from lifesign.auth.service import Keyring, caller_of
from lifesign.faults import invalid
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.describe import PAGING, operation
from lifesign.http.paging import is_id, page_body, page_of

router = APIRouter(tags=["Keys"])


@router.post(
    "/v1/keys",
    **operation(
        "createApiKey",
        answer=(201, schemas.MadeKey),
        body=schemas.NewKey,
        examples=schemas.NEW_KEYS,
        links={"id=id": ("deleteApiKey",)},
    ),
)
async def create_key(request: Request) -> Response:
    """Make a key. Nobody can hand on a scope they do not hold."""
    caller = await caller_of(request, "keys:write")
    body = await read_model(request, schemas.NewKey)
    context = context_of(request)
    now = context.now()
    if "expiresAt" in body.given() and body.expiresAt <= now:
        raise invalid("expiresAt", "must lie in the future")
    key, token = await context.db.write(
        service.create_key, caller, name=body.name, scopes=body.scopes, expires_at=body.expiresAt, now=now
    )
    return json_answer(schemas.shown_once(key, token), 201)


@router.get("/v1/keys", **operation("listApiKeys", answer=(200, schemas.KeyList), parameters=PAGING, errors=(400,)))
async def list_keys(request: Request) -> Response:
    """List the keys of the project."""
    caller = await caller_of(request, "keys:read")
    page = page_of(request, is_id("key"))
    keyring: Keyring = request.app.state.keyring
    keys = await context_of(request).db.read(
        service.list_keys, caller.project_id, limit=page.limit + 1, after=page.after
    )
    return json_answer(
        page_body("keys", keys, page, key=lambda key: key.id, show=lambda key: schemas.shown(key, keyring))
    )


@router.get("/v1/whoami", **operation("readOwnKey", answer=(200, schemas.OwnKey), never=(403,)))
async def read_own_key(request: Request) -> Response:
    """Read the key that asks: what it may do, and in which project. Needs no scope."""
    caller = await service.any_caller_of(request)
    own = await context_of(request).db.read(service.own_key, caller)
    return json_answer(schemas.shown_own(own))


@router.delete("/v1/keys/{id}", **operation("deleteApiKey", answer=(204, None), errors=(404,)))
async def delete_key(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """Revoke a key, from the next request on. A key may revoke itself."""
    caller = await caller_of(request, "keys:write")
    context = context_of(request)
    await context.db.write(service.revoke_key, caller.project_id, id, context.now())
    keyring: Keyring = request.app.state.keyring
    keyring.forget()
    return no_content()
