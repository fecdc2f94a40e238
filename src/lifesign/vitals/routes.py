"""HTTP of vitals: traces, images and videos in, reports out. Whoever calls is known by a function that is handed in."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from typing import Any, cast

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.http.context import context_of
from lifesign.http.paging import cursor_of, is_id, key_in
from lifesign.http.peer import network_of
from lifesign.vitals import rules, service, uploads, watching
from lifesign.vitals.extras import require_video, require_vitals
from lifesign.vitals.rules import (
    DemoSwitchedOff,
    FieldRefused,
    InvalidTraces,
    NoPulse,
    NotEnoughFrames,
    UnsupportedMedia,
)
from lifesign.vitals.service import Caller, Vitals
from lifesign.vitals.sessions import Session, Wish
from lifesign.vitals.store import Measurement
from lifesign.vitals.uploads import Upload
from lifesign.vitals.watching import Allowed, Sender

Json = dict[str, Any]  # Any: JSON
CallerOf = Callable[[Request], Awaitable[Caller]]
"""Who shows a key of the Vitals API. Raises what the table of failures answers with 401."""

DEMO_PROJECT = "default"
_DEFAULT_MS, _SHORTEST_MS, _LONGEST_MS = 30_000, 10_000, 120_000
_MIN_FRAMES, _MIN_FPS = 80, 8
_DEMO_S = 60
_LONGEST_STREAM_S, _SHORTEST_STREAM_S = 600, 10
_DEFAULT_LIMIT, _MAX_LIMIT = 50, 200
_HEAD_BYTES = 16
_MAX_SIDE = 4096
_MS = 1000


def router_for(caller_of: CallerOf) -> APIRouter:
    """The routes that need a key."""
    router = APIRouter(include_in_schema=False)

    @router.post("/api/rppg/measure")
    async def measure(request: Request) -> Response:
        return await _measure(request, await caller_of(request))

    @router.post("/api/vitals/analyze")
    async def analyze(request: Request) -> Response:
        return await _analyze(request, await caller_of(request))

    @router.post("/api/vitals/sessions")
    async def make_session(request: Request) -> Response:
        return await _make_session(request, await caller_of(request))

    @router.get("/api/vitals/sessions/{session_id}")
    async def read_session(request: Request, session_id: str) -> Response:
        caller = await caller_of(request)
        found = vitals_of(request).sessions.of_key(session_id, caller.key_id, context_of(request).now())
        return _good({"session": _shown_session(found)})

    @router.get("/api/vitals/measurements")
    async def list_measurements(request: Request) -> Response:
        return await _list_measurements(request, await caller_of(request))

    @router.get("/api/vitals/measurements/{measurement_id}")
    async def read_measurement(request: Request, measurement_id: str) -> Response:
        caller = await caller_of(request)
        found = await context_of(request).db.read(service.measurement, caller.key_id, measurement_id)
        return _good({"measurement": _shown_measurement(found)})

    @router.delete("/api/vitals/measurements/{measurement_id}")
    async def delete_measurement(request: Request, measurement_id: str) -> Response:
        caller = await caller_of(request)
        await context_of(request).db.write(service.delete, caller.key_id, measurement_id)
        return _good({})

    return router


demo_router = APIRouter(include_in_schema=False)
"""The routes that need none."""


@demo_router.post("/api/demo/analyze")
async def try_analysis(request: Request) -> Response:
    """Analyse without a key; nothing is kept."""
    _admit(request)
    if uploads.is_multipart(request):
        return await _measure(request, None)
    return await _analyze(request, None)


@demo_router.post("/api/demo/session")
async def try_session(request: Request) -> Response:
    """A stream of a minute without a key."""
    _admit(request)
    require_vitals()
    session, token = vitals_of(request).sessions.make(
        Wish(max_s=_DEMO_S), key_id=None, project_id=DEMO_PROJECT, now=context_of(request).now()
    )
    return _session_made(session, token)


def vitals_of(request: Request) -> Vitals:
    """What the node has for this."""
    return cast("Vitals", request.app.state.vitals)


def _admit(request: Request) -> None:
    context = context_of(request)
    if not context.settings.demo:
        raise DemoSwitchedOff
    vitals_of(request).demo.admit(network_of(request), context.now())


def _good(body: Mapping[str, Any], status: int = 200) -> Response:
    return json_answer({"success": True, **body}, status)


# Measuring ----------------------------------------------------------------------------------------------------------
async def _measure(request: Request, caller: Caller | None) -> Response:
    began = time.perf_counter()
    async with uploads.upload_of(request, uploads.MEASURE_BYTES) as upload:
        if any((rules.image_side(each) or 0) > _MAX_SIDE for each in upload.frames):
            raise BodyTooLarge
        if not uploads.is_multipart(request) or (not upload.frames and upload.video is None):
            raise FieldRefused("frame is required")
        duration_ms = _duration(upload.fields.get("duration_ms"))
        has_raw = _flag(upload.fields, "include_raw")
        times = _times(upload, duration_ms)
        watch = None if caller is None else await _allowed(request, _json_field(upload.fields, "watch"))
        told = await _measured(request, upload, times, has_raw=has_raw)
    report = told["report"]
    await _keep_and_watch(request, caller, [report], is_kept=[False], watch=watch)
    rate = report["vitals"]["heart_rate"]
    if rate["value"] is None:
        raise NoPulse(rate["reason"])
    data = _measured_data(report, context_of(request).now(), duration_ms if upload.video is None else None)
    if has_raw:
        data["raw"] = told["raw"]
    took_ms = round((time.perf_counter() - began) * _MS)
    return _good({"data": data, "meta": {"api_version": "1.0", "processing_ms": took_ms}})


async def _measured(request: Request, upload: Upload, times: list[float], *, has_raw: bool) -> Json:
    """The report, by a worker. Raises UnsupportedMedia, NotEnoughFrames and what the analysis raises."""
    vitals = vitals_of(request)
    if upload.video is not None:
        await _require_known(upload)
        require_video()
        from lifesign.vitals.jobs import analyze_file  # noqa: PLC0415 - the workers' work needs the extras

        async with uploads.on_disk(upload.video) as path:
            return await vitals.workers.run(analyze_file, path, {}, _gate(vitals), has_raw=has_raw)
    if not all(map(rules.is_image, upload.frames)):
        raise UnsupportedMedia
    count, span_s = len(upload.frames), (times[-1] - times[0]) / _MS
    if count == 1 or count < max(_MIN_FRAMES, _MIN_FPS * span_s):
        raise NotEnoughFrames(count)
    require_video()
    from lifesign.vitals.jobs import measure_images  # noqa: PLC0415 - as above

    return await vitals.workers.run(measure_images, upload.frames, times, _gate(vitals), has_raw=has_raw)


async def _require_known(upload: Upload) -> None:
    if upload.video is None:
        return
    head = await upload.video.read(_HEAD_BYTES)
    await upload.video.seek(0)
    if not rules.is_video(head):
        raise UnsupportedMedia


def _gate(vitals: Vitals) -> Any:  # Any: a named tuple of a module that needs the extras
    from lifesign.vitals.jobs import Gate  # noqa: PLC0415 - as the workers' work

    return Gate(*vitals.gate)


def _duration(text: str | None) -> int:
    if text is None:
        return _DEFAULT_MS
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(_LONGEST_MS))
    if not is_number or not _SHORTEST_MS <= int(text) <= _LONGEST_MS:
        raise FieldRefused(f"duration_ms must be an integer between {_SHORTEST_MS} and {_LONGEST_MS}")
    return int(text)


def _flag(fields: Mapping[str, str], name: str) -> bool:
    text = fields.get(name, "false")
    if text not in {"true", "false"}:
        raise FieldRefused(f"{name} must be true or false")
    return text == "true"


def _times(upload: Upload, duration_ms: int) -> list[float]:
    """The instant of each frame: as sent, or evenly from the first to the last."""
    count = len(upload.frames)
    text = upload.fields.get("timestamps_ms")
    if text is None or upload.video is not None:
        return [index * duration_ms / max(1, count - 1) for index in range(count)]
    bad = FieldRefused("timestamps_ms must be an increasing array with one number per frame")
    try:
        times = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise bad from None
    if not isinstance(times, list) or len(times) != count:
        raise bad
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in times):
        raise bad
    if any(later <= earlier for earlier, later in pairwise(times)):
        raise bad
    return [float(each) for each in times]


def _measured_data(report: Json, now: EpochMs, duration_ms: int | None) -> Json:
    vitals = report["vitals"]
    reasons = {
        name: vitals[own]["reason"]
        for name, own in (
            ("hrv", "rmssd"),
            ("spo2", "spo2"),
            ("stress_index", "stress_index"),
            ("respiration_rate", "respiration_rate"),
        )
        if vitals[own]["value"] is None
    }
    return {
        "heart_rate": round(vitals["heart_rate"]["value"]),
        "hrv": vitals["rmssd"]["value"],
        "spo2": _whole(vitals["spo2"]["value"]),
        "stress_index": vitals["stress_index"]["value"],
        "respiration_rate": _whole(vitals["respiration_rate"]["value"]),
        "confidence": vitals["heart_rate"]["confidence"],
        "duration_ms": report["duration_ms"] if duration_ms is None else duration_ms,
        "timestamp": rfc3339(now),
        "reasons": reasons,
        "disclaimer": report["disclaimer"],
    }


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)


# Analysing ----------------------------------------------------------------------------------------------------------
async def _analyze(request: Request, caller: Caller | None) -> Response:
    if uploads.is_multipart(request):
        return await _analyze_video(request, caller)
    raw = await uploads.read_json_body(request)
    require_vitals()
    from lifesign.vitals.jobs import analyze_body  # noqa: PLC0415 - the workers' work needs the extras

    watch = None if caller is None else await _allowed(request, _watch_of(raw))
    vitals = vitals_of(request)
    if caller is None:
        _require_short(raw)
    reported, is_many = await vitals.workers.run(analyze_body, raw, _gate(vitals))
    kept = await _keep_and_watch(
        request,
        caller,
        [each.report for each in reported],
        is_kept=[each.is_kept for each in reported],
        watch=watch,
    )
    if not is_many:
        return _good({"report": reported[0].report, **_told_kept(kept[0])})
    return _good(
        {
            "reports": [
                {"error": each.error} if each.report is None else {**each.report, **_told_kept(its)}
                for each, its in zip(reported, kept, strict=True)
            ]
        }
    )


def _told_kept(measurement: Measurement | None) -> Json:
    return {} if measurement is None else {"measurement_id": measurement.id}


def _watch_of(raw: bytes) -> object:
    """The member `watch` of a body, which is judged before anything is analysed."""
    if b'"watch"' not in raw:
        return None
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return None
    return document.get("watch") if isinstance(document, dict) else None


def _require_short(raw: bytes) -> None:
    """The demo takes one recording of a minute at most. Raises InvalidTraces."""
    from lifesign.vitals.bodies import document_in  # noqa: PLC0415 - needs the extra

    document = document_in(raw)
    if "recordings" in document:
        raise InvalidTraces("The demo takes one recording")
    times, rgb, fps = document.get("t_ms"), document.get("rgb"), document.get("fps")
    if isinstance(times, list) and len(times) > 1:
        first, last = times[0], times[-1]
        is_known = all(isinstance(each, int | float) for each in (first, last))
        span_s = (last - first) / _MS if is_known else 0.0
    else:
        is_known = isinstance(rgb, list) and isinstance(fps, int | float) and fps > 0
        span_s = len(cast("list[object]", rgb)) / cast("float", fps) if is_known else 0.0
    if span_s > _DEMO_S + 1:
        raise InvalidTraces(f"The demo takes at most {_DEMO_S} s")


async def _analyze_video(request: Request, caller: Caller | None) -> Response:
    async with uploads.upload_of(request, uploads.VIDEO_BYTES) as upload:
        if upload.video is None:
            raise FieldRefused("video is required")
        options = {
            "mode": upload.fields.get("mode", "rest"),
            "method": upload.fields.get("method", "pos"),
            "debug": _flag(upload.fields, "debug"),
            "calibration": _json_field(upload.fields, "calibration"),
        }
        is_kept = _flag(upload.fields, "store")
        watch = None if caller is None else await _allowed(request, _json_field(upload.fields, "watch"))
        await _require_known(upload)
        require_video()
        from lifesign.vitals.jobs import analyze_file  # noqa: PLC0415 - the workers' work needs the extras

        vitals = vitals_of(request)
        async with uploads.on_disk(upload.video) as path:
            told = await vitals.workers.run(analyze_file, path, options, _gate(vitals))
    report = told["report"]
    kept = await _keep_and_watch(request, caller, [report], is_kept=[is_kept], watch=watch)
    return _good({"report": report, **_told_kept(kept[0])})


def _json_field(fields: Mapping[str, str], name: str) -> object:
    text = fields.get(name)
    if text is None:
        return None
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        if name == "watch":
            raise rules.WatchInvalid from None
        raise FieldRefused(f"{name} must be JSON") from None


async def _allowed(request: Request, value: object) -> Allowed | None:
    return None if value is None else await watching.allowed(request, rules.watch_in(value))


async def _keep_and_watch(
    request: Request,
    caller: Caller | None,
    reports: list[Json | None],
    *,
    is_kept: list[bool],
    watch: Allowed | None,
) -> list[Measurement | None]:
    """Keep what is to be kept, and check in what was given; in the order of the reports."""
    context = context_of(request)
    kept: list[Measurement | None] = [None] * len(reports)
    if caller is not None and any(is_kept):
        wanted = [report if keep else None for report, keep in zip(reports, is_kept, strict=True)]
        kept = await context.db.write(service.keep_all, caller, wanted, context.now())
    if watch is not None:
        for report in reports:
            rate = None if report is None else report["vitals"]["heart_rate"]
            is_provisional = report is not None and "provisional" in report["warnings"]
            if rate is not None and rate["value"] is not None and not is_provisional:
                await watching.check_in_once(Sender.of(request), watch, rate["value"], rate["confidence"])
    return kept


# Sessions -----------------------------------------------------------------------------------------------------------
async def _make_session(request: Request, caller: Caller) -> Response:
    raw = await uploads.read_json_body(request)
    require_vitals()
    from lifesign.vitals.bodies import document_in  # noqa: PLC0415 - needs the extra

    document = document_in(raw) if raw.strip() else {}
    wish = _wish_in(document)
    may = await _allowed(request, document.get("watch"))
    if may is not None:
        wish = replace(wish, watch=may.watch, watch_project_id=may.project_id, watch_key_id=may.key_id)
    session, token = vitals_of(request).sessions.make(
        wish, key_id=caller.key_id, project_id=caller.project_id, now=context_of(request).now()
    )
    return _session_made(session, token)


def _wish_in(document: Json) -> Wish:
    from lifesign.vitals.analyze import require_method, require_mode  # noqa: PLC0415 - needs the extra

    max_s, is_kept = document.get("max_s", 120), document.get("store", False)
    is_whole = isinstance(max_s, int) and not isinstance(max_s, bool)
    if not is_whole or not _SHORTEST_STREAM_S <= max_s <= _LONGEST_STREAM_S:
        raise FieldRefused(f"max_s must be an integer between {_SHORTEST_STREAM_S} and {_LONGEST_STREAM_S}")
    if not isinstance(is_kept, bool):
        raise FieldRefused("store must be true or false")
    mode, method = document.get("mode", "rest"), document.get("method", "pos")
    return Wish(require_mode(str(mode)), require_method(str(method)), max_s, is_kept)


def _session_made(session: Session, token: str) -> Response:
    told = {
        "id": session.id,
        "token": token,
        "ws_url": "/api/vitals/stream",
        "expires_at": rfc3339(session.expires_at),
    }
    response = _good({"session": told}, 201)
    response.headers["Cache-Control"] = "no-store"
    return response


def _shown_session(session: Session) -> Json:
    return {
        "id": session.id,
        "state": session.state,
        "last_update": session.last,
        "report": session.report,
        "measurement_id": session.measurement_id,
    }


# Measurements -------------------------------------------------------------------------------------------------------
async def _list_measurements(request: Request, caller: Caller) -> Response:
    limit = request.query_params.get("limit", str(_DEFAULT_LIMIT))
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(_MAX_LIMIT))
    if not is_number or not 1 <= int(limit) <= _MAX_LIMIT:
        raise FieldRefused(f"limit must be an integer between 1 and {_MAX_LIMIT}")
    cursor = request.query_params.get("cursor")
    before = None if cursor is None else key_in(cursor)
    if cursor is not None and (before is None or not is_id(service.PREFIX)(before)):
        raise FieldRefused("cursor is not a cursor of this list")
    found = await context_of(request).db.read(
        service.measurements_of, caller.key_id, limit=int(limit) + 1, before=before
    )
    page = found[: int(limit)]
    body: Json = {"measurements": [_shown_measurement(each) for each in page]}
    if len(found) > len(page):
        body["next_cursor"] = cursor_of(page[-1].id)
    return _good(body)


def _shown_measurement(measurement: Measurement) -> Json:
    return {
        "id": measurement.id,
        "created_at": rfc3339(measurement.created_at),
        "report": orjson.loads(measurement.report),
    }
