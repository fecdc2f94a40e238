"""HTTP of inventories: machines send them, people read what changed."""

import asyncio
import zlib
from typing import Any, Final, cast, get_args

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.db import Database, WriterBusy
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge, read_body
from lifesign.http.context import context_of, header_of
from lifesign.http.describe import Schema, operation
from lifesign.http.paging import cursor_of, is_id
from lifesign.inventory import schemas as shapes
from lifesign.inventory import service as inventory
from lifesign.inventory.rules import MAX_BYTES, Category, Change, Overtaken, Severity, Volatile, is_too_much
from lifesign.inventory.service import Latest, Prepared, Received
from lifesign.systems import bodies, schemas, service
from lifesign.systems.machine_routes import machines_of, recognized_again
from lifesign.systems.routes import CURSOR, admin_of, decoded_cursor, flawed, limit_parameter, number_of, word_of
from lifesign.systems.rules import Flaw, StaleCredential, ValidationFailed
from lifesign.systems.store import Known

machine_router = APIRouter(tags=["Machines"])
router = APIRouter(tags=["Systems"])

_ATTEMPTS = 10
_AT_ONCE = 2
_SNAPSHOTS, _MAX_SNAPSHOTS = 20, 200
_CHANGES, _MAX_CHANGES = 100, 500
_CATEGORIES: Final = get_args(Category)
_SEVERITIES: Final = get_args(Severity)
_GZIP_WINDOW = 31
_PAUSE_S = 0.02


class Intake:
    """Takes inventories: a few at a time, in threads of their own, so that heartbeats do not wait for them."""

    def __init__(self, ignored: str) -> None:
        self._volatile = Volatile.of(ignored)
        self._room = asyncio.Semaphore(_AT_ONCE)

    async def take(self, db: Database, known: Known, raw: bytes, *, is_gzip: bool, now: EpochMs) -> Received:
        """Compare an inventory with the one before and store it.

        Raises ValidationFailed, BodyTooLarge, StaleCredential, StorageUnavailable.
        """
        async with self._room:
            new = await asyncio.to_thread(_prepared, raw, self._volatile, is_gzip=is_gzip)
            for _ in range(_ATTEMPTS):
                try:
                    return await self._stored(db, known, new, now)
                except Overtaken:
                    continue
        raise WriterBusy

    async def _stored(self, db: Database, known: Known, new: Prepared, now: EpochMs) -> Received:
        old = await db.read(inventory.latest, known.id)
        changes = [] if old is None or old.hash == new.hash else await self._changes(old, new)
        return await db.write(service.receive_inventory, known, new, changes, old=old, now=now)

    async def _changes(self, old: Latest, new: Prepared) -> list[Change]:
        # In pieces: a thread that computes shares Python's lock with the heartbeats, which wait for the end of a piece.
        await asyncio.sleep(_PAUSE_S)
        before = await asyncio.to_thread(inventory.stored_steady, old, self._volatile)
        await asyncio.sleep(_PAUSE_S)
        return await asyncio.to_thread(inventory.differences, before, new.steady)


def _prepared(raw: bytes, volatile: Volatile, *, is_gzip: bool) -> Prepared:
    raw = _unpacked(raw) if is_gzip else raw
    try:
        document = bodies.body_of(raw)
    except ValidationFailed as failed:
        # What is nested so deeply that the parser gives up may be JSON all the same.
        if "depth limit" in str(failed.__cause__):
            raise ValidationFailed(Flaw("body", "out_of_range")) from None
        raise
    if is_too_much(document):
        raise ValidationFailed(Flaw("body", "out_of_range"))
    return inventory.prepared(document, volatile)


def _unpacked(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(raw, MAX_BYTES + 1)
    except zlib.error:
        raise ValidationFailed(Flaw("body", "invalid_format")) from None
    if len(unpacked) > MAX_BYTES:
        raise BodyTooLarge
    if not unpacker.eof:
        raise ValidationFailed(Flaw("body", "invalid_format"))
    return unpacked


# Machines -----------------------------------------------------------------------------------------------------------
class InventoryReceivedAnswer(schemas.EnvelopedAnswer):
    """The inventory is on disk."""

    data: shapes.ReceivedInventory


class SystemInventory(schemas.AnyObject):
    """What the system consists of: any JSON object."""


@machine_router.post(
    "/api/systems/inventory",
    **operation(
        "sendInventory",
        answer=(200, InventoryReceivedAnswer),
        body=SystemInventory,
        examples={"a little": {"os": {"name": "Debian", "version": "12"}, "packages": [{"name": "openssl"}]}},
        envelope=schemas.ENVELOPE,
        security="BasicAuth",
        never=(403,),
    ),
)
async def receive_inventory(request: Request) -> Response:
    """Take what a machine consists of, and note what changed. This is no heartbeat."""
    known = await machines_of(request).recognized(header_of(request, b"authorization"))
    raw = await read_body(request, MAX_BYTES)
    coding = (header_of(request, b"content-encoding") or b"identity").strip().lower()
    if coding not in {b"gzip", b"identity"}:
        raise ValidationFailed(Flaw("body", "invalid_format"))
    intake = cast("Intake", request.app.state.intake)
    context = context_of(request)
    now = context.now()
    try:
        received = await intake.take(context.db, known, raw, is_gzip=coding == b"gzip", now=now)
    except StaleCredential:
        known = await recognized_again(request)
        received = await intake.take(context.db, known, raw, is_gzip=coding == b"gzip", now=now)
    shown = shapes.shown_snapshot(received.snapshot)
    data = {
        "system_id": known.id,
        "snapshot_id": shown["id"],
        "timestamp": shown["timestamp"],
        "data_size": shown["data_size"],
        "changed": received.changed,
        "changes": received.changes,
    }
    return json_answer(schemas.answer(200, "inventory received", data))


# People -------------------------------------------------------------------------------------------------------------
class SnapshotPageAnswer(schemas.EnvelopedAnswer):
    """Inventories of a system, newest first."""

    data: shapes.SnapshotPage


class InventoryAnswer(schemas.EnvelopedAnswer):
    """The newest inventory."""

    data: shapes.ShownDocument


class ChangePageAnswer(schemas.EnvelopedAnswer):
    """What changed in a system, newest first."""

    data: shapes.ChangePage


def _operation(operation_id: str, **told: Any) -> dict[str, Any]:  # Any: as `operation` takes them
    return operation(operation_id, envelope=schemas.ENVELOPE, **told)


@router.get(
    "/api/systems/{system:system}/inventory",
    **_operation(
        "listInventories",
        answer=(200, SnapshotPageAnswer),
        parameters=(limit_parameter(_MAX_SNAPSHOTS, _SNAPSHOTS), CURSOR),
        errors=(400, 404),
    ),
)
async def list_inventories(request: Request, system: str) -> Response:
    """List the inventories of a system that are kept, without their documents."""
    caller = await admin_of(request, "systems:read")
    limit = number_of(request, "limit", low=1, high=_MAX_SNAPSHOTS, default=_SNAPSHOTS)
    before = _before(request, "snp")
    rows = await context_of(request).db.read(
        service.snapshots, caller.project_id, system, limit=limit + 1, before=before
    )
    page = _page("snapshots", [shapes.shown_snapshot(each) for each in rows], limit)
    return json_answer(schemas.answer(200, "inventory retrieved successfully", page))


@router.get(
    "/api/systems/{system:system}/inventory/latest",
    **_operation("getInventory", answer=(200, InventoryAnswer), errors=(404,)),
)
async def get_inventory(request: Request, system: str) -> Response:
    """Read the newest inventory of a system."""
    caller = await admin_of(request, "systems:read")
    snapshot, compressed = await context_of(request).db.read(service.latest_inventory, caller.project_id, system)
    document = orjson.Fragment(await asyncio.to_thread(zlib.decompress, compressed))
    shown = shapes.shown_snapshot(snapshot) | {"inventory": document}
    return json_answer(schemas.answer(200, "inventory retrieved successfully", shown))


_FILTERS: tuple[Schema, ...] = (
    {"name": "category", "in": "query", "schema": {"type": "string", "enum": list(_CATEGORIES)}},
    {"name": "severity", "in": "query", "schema": {"type": "string", "enum": list(_SEVERITIES)}},
    {
        "name": "since",
        "in": "query",
        "description": "No older than this.",
        "schema": {"type": "string", "format": "date-time"},
    },
)


@router.get(
    "/api/systems/{system:system}/inventory/changes",
    **_operation(
        "listInventoryChanges",
        answer=(200, ChangePageAnswer),
        parameters=(limit_parameter(_MAX_CHANGES, _CHANGES), CURSOR, *_FILTERS),
        errors=(400, 404),
    ),
)
async def list_changes(request: Request, system: str) -> Response:
    """List what changed in a system; all filters must match."""
    caller = await admin_of(request, "systems:read")
    limit = number_of(request, "limit", low=1, high=_MAX_CHANGES, default=_CHANGES)
    rows = await context_of(request).db.read(
        service.inventory_changes,
        caller.project_id,
        system,
        limit=limit + 1,
        before=_before(request, "chg"),
        category=word_of(request, "category", _CATEGORIES),
        severity=word_of(request, "severity", _SEVERITIES),
        since=_since(request),
    )
    page = _page("changes", [shapes.shown_change(each) for each in rows], limit)
    return json_answer(schemas.answer(200, "inventory changes retrieved successfully", page))


def _before(request: Request, prefix: str) -> str | None:
    text = decoded_cursor(request)
    if text is not None and not is_id(prefix)(text):
        raise flawed("cursor", "invalid_format", request.query_params["cursor"])
    return text


def _page(name: str, rows: list[dict[str, Any]], limit: int) -> dict[str, Any]:  # Any: JSON
    page: dict[str, Any] = {name: rows[:limit]}
    if len(rows) > limit:
        page["next_cursor"] = cursor_of(rows[limit - 1]["id"])
    return page


def _since(request: Request) -> EpochMs | None:
    text = request.query_params.get("since")
    if text is None:
        return None
    try:
        return parse_timestamp(text)
    except ValueError:
        raise flawed("since", "invalid_format", text) from None
