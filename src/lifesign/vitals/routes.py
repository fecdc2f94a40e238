"""HTTP of vitals: traces, images and videos in, reports out."""

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.vitals.schemas import Json
from lifesign.auth.vitals.service import VitalsCaller, vitals_caller
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.answers import json_answer
from lifesign.http.body import BodyTooLarge
from lifesign.http.context import context_of
from lifesign.http.peer import network_of
from lifesign.vitals import asked, rules, schemas, service, uploads, watching
from lifesign.vitals.extras import require_video, require_vitals
from lifesign.vitals.metrics import count_report
from lifesign.vitals.rules import DemoSwitchedOff, FieldRefused, NoPulse, NotEnoughFrames, UnsupportedMedia, VideoError
from lifesign.vitals.service import Vitals
from lifesign.vitals.store import Measurement
from lifesign.vitals.uploads import Upload
from lifesign.vitals.watching import Allowed, Sender

router = APIRouter(tags=["Vitals"])

_MIN_FRAMES, _MIN_FPS = 80, 8
_HEAD_BYTES = 16
_LOOKED_THROUGH_BYTES = 1 << 20
_MAX_SIDE = 4096
_MS = 1000


@router.post("/api/rppg/measure", **schemas.MEASURE)
async def measure(request: Request) -> Response:
    """Read a heart rate from images in the order of time, or from a video: a number, or 422 with the reason."""
    return await _measure(request, await vitals_caller(request))


@router.post("/api/vitals/analyze", **schemas.ANALYZE)
async def analyze(request: Request) -> Response:
    """Tell everything that traces of skin colour, or a video, tell. A report without any value is one, too."""
    return await _analyze(request, await vitals_caller(request))


@router.post("/api/demo/analyze", **schemas.TRY)
async def try_analysis(request: Request) -> Response:
    """Measure or analyse without a key, ten times an hour for each network. Nothing is kept."""
    demo_admitted(request)
    if uploads.is_multipart(request):
        return await _measure(request, None)
    return await _analyze(request, None)


def vitals_of(request: Request) -> Vitals:
    """What the node has for this."""
    return cast("Vitals", request.app.state.vitals)


def demo_admitted(request: Request) -> None:
    """Count one request of the demo. Raises DemoSwitchedOff, DemoLimitReached."""
    context = context_of(request)
    if not context.settings.demo:
        raise DemoSwitchedOff
    vitals_of(request).demo.admit(network_of(request), context.now())


def good(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` with `"success":true`."""
    return json_answer({"success": True, **body}, status, headers)


# Measuring ----------------------------------------------------------------------------------------------------------
async def _measure(request: Request, caller: VitalsCaller | None) -> Response:
    began = time.perf_counter()
    async with uploads.upload_of(request, vitals_of(request).arrivals, uploads.MEASURE_BYTES) as upload:
        if any((rules.image_side(each) or 0) > _MAX_SIDE for each in upload.frames):
            raise BodyTooLarge
        if not upload.frames and upload.video is None:
            raise FieldRefused("frame is required")
        duration_ms = asked.duration_ms(upload.fields)
        has_raw = asked.flag(upload.fields, "include_raw")
        times = asked.frame_times(upload, duration_ms)
        watch = await _forms_watch(request, caller, upload)
        told = await _measured(request, upload, times, has_raw=has_raw)
    report = told["report"]
    count_report(report)
    warned = await _check_in(request, [report], watch)
    rate = report["vitals"]["heart_rate"]
    if rate["value"] is None:
        raise NoPulse(rate["reason"])
    data = _measured_data(report, context_of(request).now(), duration_ms if upload.video is None else None)
    if has_raw:
        data["raw"] = told["raw"]
    took_ms = round((time.perf_counter() - began) * _MS)
    return good({"data": data, "meta": {"api_version": "1.0", "processing_ms": took_ms}, **warned})


async def _measured(request: Request, upload: Upload, times: list[float], *, has_raw: bool) -> Json:
    """The report, by a worker. Raises UnsupportedMedia, NotEnoughFrames and what the analysis raises."""
    vitals = vitals_of(request)
    if upload.video is not None:
        await _require_known(upload)
        require_video()
        from lifesign.vitals.jobs import analyze_file  # noqa: PLC0415 - the workers' work needs the extras

        path = await uploads.path_of(upload.video)
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
    if not head:
        raise VideoError("empty", "there is nothing in it")
    if not rules.is_video(head):
        raise UnsupportedMedia


def _gate(vitals: Vitals) -> Any:  # Any: a named tuple of a module that needs the extras
    from lifesign.vitals.jobs import Gate  # noqa: PLC0415 - as the workers' work

    return Gate(*vitals.gate)


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
async def _analyze(request: Request, caller: VitalsCaller | None) -> Response:
    if uploads.is_multipart(request):
        return await _analyze_video(request, caller)
    vitals = vitals_of(request)
    raw = await uploads.read_json_body(request, vitals.arrivals)
    require_vitals()
    from lifesign.vitals.jobs import analyze_body  # noqa: PLC0415 - the workers' work needs the extras

    watch = None if caller is None else await allowed_watch(request, await _watch_in(vitals, raw))
    reported, is_many = await vitals.workers.run(analyze_body, raw, _gate(vitals), is_trial=caller is None)
    for each in reported:
        if each.report is not None:
            count_report(each.report)
    kept = await _keep(request, caller, [each.report if each.is_kept else None for each in reported])
    warned = await _check_in(request, [each.report for each in reported], watch)
    if not is_many:
        return good({"report": reported[0].report, **_told_kept(kept[0]), **warned})
    reports = [
        {"error": each.error} if each.report is None else {**each.report, **_told_kept(its)}
        for each, its in zip(reported, kept, strict=True)
    ]
    return good({"reports": reports, **warned})


async def _watch_in(vitals: Vitals, raw: bytes) -> object:
    """The member `watch` of a body, unchecked: it is judged before anything is analysed. None where there is none."""
    from lifesign.vitals.bodies import NOT_GLANCED_AT, glanced_at_watch, watch_in_body  # noqa: PLC0415 - needs the extra

    # Looking through a megabyte takes a millisecond or two, in which nobody else is served.
    if len(raw) <= _LOOKED_THROUGH_BYTES:
        with suppress(*NOT_GLANCED_AT):
            return glanced_at_watch(raw)
    return await vitals.workers.run(watch_in_body, raw)


def _told_kept(measurement: Measurement | None) -> Json:
    return {} if measurement is None else {"measurement_id": measurement.id}


async def _analyze_video(request: Request, caller: VitalsCaller | None) -> Response:
    async with uploads.upload_of(request, vitals_of(request).arrivals, uploads.VIDEO_BYTES) as upload:
        if upload.video is None:
            raise FieldRefused("video is required")
        options = {
            "mode": upload.fields.get("mode", "rest"),
            "method": upload.fields.get("method", "pos"),
            "debug": asked.flag(upload.fields, "debug"),
            "calibration": asked.calibration(upload.fields),
        }
        is_kept = asked.flag(upload.fields, "store")
        watch = await _forms_watch(request, caller, upload)
        await _require_known(upload)
        require_video()
        from lifesign.vitals.jobs import analyze_file  # noqa: PLC0415 - the workers' work needs the extras

        vitals = vitals_of(request)
        path = await uploads.path_of(upload.video)
        told = await vitals.workers.run(analyze_file, path, options, _gate(vitals))
    report = told["report"]
    count_report(report)
    kept = await _keep(request, caller, [report if is_kept else None])
    warned = await _check_in(request, [report], watch)
    return good({"report": report, **_told_kept(kept[0]), **warned})


async def _forms_watch(request: Request, caller: VitalsCaller | None, upload: Upload) -> Allowed | None:
    return None if caller is None else await allowed_watch(request, asked.watch_in_form(upload.fields))


async def allowed_watch(request: Request, value: object) -> Allowed | None:
    """What is to be checked in, once the key beside the request may. Raises WatchInvalid and what `allowed` raises."""
    return None if value is None else await watching.allowed(request, rules.watch_in(value))


async def _keep(request: Request, caller: VitalsCaller | None, reports: list[Json | None]) -> list[Measurement | None]:
    """Keep what is to be kept, in the order of the reports; the demo keeps nothing."""
    if caller is None or not any(reports):
        return [None] * len(reports)
    context = context_of(request)
    return await context.db.write(service.keep_all, caller, reports, context.now())


async def _check_in(request: Request, reports: list[Json | None], watch: Allowed | None) -> Json:
    """Check in for the last heart rate that was given, if any; what is to be told when that failed."""
    rates = [
        each["vitals"]["heart_rate"] for each in reports if each is not None and "provisional" not in each["warnings"]
    ]
    given = [(each["value"], each["confidence"]) for each in rates if each["value"] is not None]
    if watch is None or not given:
        return {}
    is_fine = await watching.check_in_once(Sender.of(request), watch, vitals_of(request).watched, given[-1])
    return {} if is_fine else {"warnings": ["checkin_failed"]}
