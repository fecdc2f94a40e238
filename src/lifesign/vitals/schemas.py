"""What people send and see of vitals: recordings, reports, measurements and streams."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, Field

from lifesign.auth.vitals.schemas import Good, Json, vitals_operation
from lifesign.clock import rfc3339
from lifesign.http.describe import Refusal
from lifesign.http.fields import Body, optional
from lifesign.vitals.rules import UploadTooSlow
from lifesign.vitals.sessions import LONGEST_S, Session
from lifesign.vitals.store import Measurement

MeasuringMode = Literal["rest", "exercise"]
MeasuringMethod = Literal["pos", "chrom", "lgi", "omit", "pbv", "green"]
MIN_DURATION_MS, MAX_DURATION_MS, DURATION_MS = 10_000, 120_000, 30_000
MIN_STREAM_S, MAX_STREAM_S, STREAM_S = 10, LONGEST_S, 120
MAX_LISTED, LISTED = 200, 50
MAX_SAMPLES, MIN_SAMPLES = 36_000, 8
MAX_RECORDINGS = 50
_Colour = list[float]


# What is sent -------------------------------------------------------------------------------------------------------
class WatchedHeartbeat(Body):
    """The heartbeat that a pulse checks in. Needs a key with `checkins:write` of its project beside `X-API-Key`."""

    heartbeat: str = Field(description="Id or slug.", min_length=1)
    every_s: int = Field(default=30, description="At most one check-in in so many seconds.", ge=10, le=3600)
    min_bpm: float | None = Field(default=None, description="Below it the heartbeat is unhealthy.", ge=20, le=300)
    max_bpm: float | None = Field(default=None, description="Above it the heartbeat is unhealthy.", ge=20, le=300)
    include_value: bool = Field(default=False, description="Send heart rate and confidence as metadata.")


class CalibrationPair(Body):
    """What a second device said while a ratio was measured."""

    ratio: float
    spo2: float = Field(ge=70, le=100)


class SentTraces(Body):
    """Mean colours of skin over time."""

    t_ms: list[float] | None = Field(
        default=None, description="The instant of each sample, strictly increasing; this or `fps` is needed."
    )
    rgb: Annotated[
        list[_Colour | list[_Colour | None] | None], Field(min_length=MIN_SAMPLES, max_length=MAX_SAMPLES)
    ] = optional(
        "Needed but for several recordings. For each sample `[r,g,b]`, or one for each of 1 to 8 regions; null where "
        "nothing was seen."
    )
    face: list[float] | None = Field(default=None, description="How sure it is that there is a face, 0 to 1.")
    box: list[list[float]] | None = Field(default=None, description="Centre x, y and width of the face in pixels.")
    clipped: list[list[float]] | None = Field(
        default=None, description="Of each region, the share of pixels that are too dark or too bright."
    )
    mode: MeasuringMode | None = Field(default="rest")
    method: MeasuringMethod | None = Field(default="pos")
    fps: float | None = Field(default=None, description="Samples per second, 5 to 240, where there are no times.")
    calibration: list[CalibrationPair] | None = Field(default=None, description="For `spo2`.")
    debug: bool | None = Field(default=False, description="Tell what refused values would have been.")
    store: bool | None = Field(default=False, description="Keep the report as a measurement.")
    watch: WatchedHeartbeat | None = Field(default=None, description="Let a given heart rate check in a heartbeat.")
    recordings: list[Any] | None = Field(
        default=None,
        description="Several at once, each as one is sent alone but for `watch`, and judged by itself.",
        min_length=1,
        max_length=MAX_RECORDINGS,
    )


class WantedStream(Body):
    """What a stream is to be."""

    mode: MeasuringMode = Field(default="rest")
    method: MeasuringMethod = Field(default="pos")
    max_s: int = Field(default=STREAM_S, description="After so long it ends.", ge=MIN_STREAM_S, le=MAX_STREAM_S)
    store: bool = Field(default=False, description="Keep the report as a measurement.")
    watch: WatchedHeartbeat | None = Field(default=None, description="Let given heart rates check in a heartbeat.")


_BINARY = {"type": "string", "format": "binary"}
_WATCH = {"type": "string", "description": "JSON of what `watch` is elsewhere."}
_VIDEO_FORM: Json = {
    "type": "object",
    "properties": {
        "video": _BINARY | {"description": "MP4, MOV, WebM, MKV or AVI; at most 256 MiB and 5 minutes."},
        "mode": {"type": "string", "enum": ["rest", "exercise"]},
        "method": {"type": "string", "enum": ["pos", "chrom", "lgi", "omit", "pbv", "green"]},
        "calibration": {"type": "string", "description": "JSON of what `calibration` is elsewhere."},
        "debug": {"type": "string", "enum": ["true", "false"]},
        "store": {"type": "string", "enum": ["true", "false"]},
        "watch": _WATCH,
    },
    "required": ["video"],
}
_FRAMES_FORM: Json = {
    "type": "object",
    "properties": {
        "frame": {
            "type": "array",
            "items": _BINARY,
            "minItems": 1,
            "description": "JPEG or PNG, in the order of time; at most 4 MiB and 4096 pixels a side. Or `video`.",
        },
        "video": _BINARY | {"description": "MP4, MOV, WebM, MKV or AVI."},
        "duration_ms": {
            "type": "integer",
            "minimum": MIN_DURATION_MS,
            "maximum": MAX_DURATION_MS,
            "default": DURATION_MS,
            "description": "From the first frame to the last.",
        },
        "timestamps_ms": {
            "type": "string",
            "description": "JSON array of one increasing number for each frame; else they are evenly spaced.",
        },
        "include_raw": {"type": "string", "enum": ["true", "false"], "default": "false"},
        "watch": _WATCH,
    },
    "anyOf": [{"required": ["frame"]}, {"required": ["video"]}],
}


# What is answered ---------------------------------------------------------------------------------------------------
class Vital(BaseModel):
    """A value, or the reason why there is none."""

    value: float | None
    unit: str | None
    confidence: float
    reason: str | None
    window_s: float = Field(description="Of how many seconds of signal it speaks.")
    uncertainty: float | None
    raw: float = optional("Before the noise of timing was taken away.")
    ratio: float | None = Field(default=None, description="Of `spo2`: the pulse in red over that in blue.")
    ratio_confidence: float = optional("Of `spo2`.")


class Report(BaseModel):
    """Everything that a recording tells."""

    duration_ms: int
    samples: int
    fps: float
    mode: MeasuringMode
    method: MeasuringMethod
    vitals: dict[str, Vital] = Field(description="Always all of them.")
    series: list[Json] = Field(description="The heart rate once a second.")
    beats: Json
    quality: Json = Field(description="What the gate measured.")
    warnings: list[str]
    disclaimer: str
    version: str
    debug: Json = optional("With `debug` only.")


class NotReported(BaseModel):
    """What is wrong with one of several recordings."""

    error: str


class _Watched(Good):
    warnings: list[str] = optional("`checkin_failed`: the watched heartbeat could not be checked in.")


class _Kept(_Watched):
    measurement_id: str = optional("Of the measurement that was kept.")


class ReportAnswer(_Kept):
    """The report, or one for each of several recordings. It is there even when every value is refused."""

    report: Report = optional("Of one recording.")
    reports: list[Json] = optional("Of several: a report, or what is wrong with the recording.")


class MeasuredData(BaseModel):
    """A heart rate and, as far as they are given, other vitals."""

    heart_rate: int
    hrv: float | None = Field(description="RMSSD in ms: pulse rate variability (from video).")
    spo2: int | None
    stress_index: float | None = Field(description="Baevsky stress index (research).")
    respiration_rate: int | None
    confidence: float
    duration_ms: int
    timestamp: datetime
    reasons: dict[str, str] = Field(description="Why, for each that is null.")
    disclaimer: str
    raw: Json = optional("With `include_raw` only: `t_ms`, `rgb` and `pulse`.")


class MeasuredAnswer(_Watched):
    """A measurable pulse."""

    data: MeasuredData
    meta: Json


class TriedAnswer(Good):
    """As of a measurement, for frames and videos; as of an analysis, for traces."""

    data: MeasuredData = optional("Of frames and videos.")
    meta: Json = optional("Of frames and videos.")
    report: Report = optional("Of traces.")


class MadeStream(BaseModel):
    """A stream that may be opened."""

    id: str
    token: str = Field(description="For one connection, opened in time. Shown here only.", pattern="^vst_[0-9a-f]{64}$")
    ws_url: str
    expires_at: datetime


class MadeStreamAnswer(Good):
    """A stream, and the token that opens it."""

    session: MadeStream


class Stream(BaseModel):
    """How a stream does."""

    id: str
    state: Literal["waiting", "open", "finished", "expired"]
    last_update: Json | None
    report: Report | None = Field(description="Once it is finished, for ten minutes.")
    measurement_id: str | None


class StreamAnswer(Good):
    """A stream of this key."""

    session: Stream


class KeptMeasurement(BaseModel):
    """A report that was kept."""

    id: str
    created_at: datetime
    report: Report


class MeasurementAnswer(Good):
    """A measurement of this key."""

    measurement: KeptMeasurement


class MeasurementsAnswer(Good):
    """Measurements of this key, the newest first."""

    measurements: list[KeptMeasurement]
    next_cursor: str = optional("Present when there are more.")


class Deleted(Good):
    """It is gone."""


def shown_measurement(measurement: Measurement) -> Json:
    """A measurement, on the wire."""
    return {
        "id": measurement.id,
        "created_at": rfc3339(measurement.created_at),
        "report": orjson.loads(measurement.report),
    }


def shown_session(session: Session) -> Json:
    """A stream, on the wire."""
    return {
        "id": session.id,
        "state": session.state,
        "last_update": session.last,
        "report": None if session.report is None else orjson.Fragment(session.report),
        "measurement_id": session.measurement_id,
    }


# Operations ---------------------------------------------------------------------------------------------------------
EXAMPLES: Mapping[str, Json] = {
    "traces of two regions": {
        "fps": 30,
        "rgb": [[[150.1 + n / 50, 110.2 + n / 20, 90.3], [149.0, 109.5 + n / 20, 90.0]] for n in range(8)],
    },
}
STREAM_EXAMPLES: Mapping[str, Json] = {"a minute": {"max_s": 60}}
PAGING: tuple[Json, ...] = (
    {
        "name": "limit",
        "in": "query",
        "description": "Measurements per page.",
        "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": LISTED},
    },
    {
        "name": "cursor",
        "in": "query",
        "description": "`next_cursor` of the page before; opaque.",
        "schema": {"type": "string"},
    },
)
_NOT_FOUND = Refusal("This key has no such thing, or the method does not exist.", "NOT_FOUND", "Not found")
_BUSY = Refusal("As many analyses wait as may; try again.", "UNAVAILABLE", "Server is busy", header="Retry-After")
_WATCHED = {
    403: Refusal(
        "`watch` needs `Authorization: Bearer` with a key that may check in heartbeats.",
        "FORBIDDEN",
        "A key with scope checkins:write is required to watch a heartbeat",
    ),
    404: Refusal("There is no such heartbeat in the project of that key.", "NOT_FOUND", "Heartbeat not found"),
}
_UNKNOWN_MEDIA = Refusal(
    "Neither an image nor a video of a known kind.", "UNSUPPORTED_MEDIA_TYPE", "Unsupported media type"
)
_FRAME_MISSING = Refusal("A part is missing or wrong; the first fault is told.", "BAD_REQUEST", "frame is required")
_TOO_LARGE = Refusal(
    "More than may be sent: bytes, frames, pixels or samples.", "PAYLOAD_TOO_LARGE", "Request body too large"
)
_NO_PULSE = Refusal(
    "There is no measurable pulse, and `reason` says why; or the recording cannot be decoded.",
    "UNPROCESSABLE",
    "Not enough frames: a pulse cannot be read from 1 image(s). "
    "Send at least 8 frames per second over 10 seconds or more.",
    "not_enough_frames",
)
_UNDECODABLE = Refusal(
    "The video is broken, empty or has no pictures.",
    "UNPROCESSABLE",
    "The video cannot be read: Invalid data found when processing input",
    "decode_failed",
)
_TRACES = Refusal("Something in the recording is wrong.", "BAD_REQUEST", "t_ms must be strictly increasing")
_DEMO_LIMIT = Refusal(
    "Too many from one network within an hour.",
    "RATE_LIMITED",
    "Demo limit reached: 10 requests per hour. Request a free API key for more.",
    header="Retry-After",
)
NO_SUCH_THING = {404: _NOT_FOUND}
PAGE_REFUSALS = {
    400: Refusal("`limit` or `cursor` is wrong.", "BAD_REQUEST", f"limit must be an integer between 1 and {MAX_LISTED}")
}
STREAM_REFUSALS = _WATCHED | {
    400: Refusal(
        "Something in the body is wrong.",
        "BAD_REQUEST",
        f"max_s must be an integer between {MIN_STREAM_S} and {MAX_STREAM_S}",
    ),
    503: Refusal("As many streams wait as may; try again.", "UNAVAILABLE", "Server is busy", header="Retry-After"),
}
_SLOW = Refusal(
    "The body comes too slowly, or there was no end of it within `LIFESIGN_VITALS_UPLOAD_S`.",
    "REQUEST_TIMEOUT",
    str(UploadTooSlow(600)),
)
MEASURE_REFUSALS = _WATCHED | {
    400: _FRAME_MISSING,
    408: _SLOW,
    413: _TOO_LARGE,
    415: _UNKNOWN_MEDIA,
    422: _NO_PULSE,
    503: _BUSY,
}
ANALYZE_REFUSALS = _WATCHED | {
    400: _TRACES,
    408: _SLOW,
    413: _TOO_LARGE,
    415: _UNKNOWN_MEDIA,
    422: _UNDECODABLE,
    503: _BUSY,
}
TRY_REFUSALS = {
    400: _TRACES,
    408: _SLOW,
    413: _TOO_LARGE,
    415: _UNKNOWN_MEDIA,
    422: _NO_PULSE,
    429: _DEMO_LIMIT,
    503: _BUSY,
}
TRY_STREAM_REFUSALS = {429: _DEMO_LIMIT, 503: STREAM_REFUSALS[503]}


def with_forms(described: dict[str, Any], *forms: Json, has_json: bool = True) -> dict[str, Any]:  # Any: as FastAPI's
    """The keyword arguments of a route whose body may also be, or has to be, one of these forms."""
    body = described["openapi_extra"].setdefault("requestBody", {"required": True, "content": {}})
    if not has_json:
        body["content"] = {}
    body["content"]["multipart/form-data"] = {"schema": forms[0] if len(forms) == 1 else {"anyOf": list(forms)}}
    return described


def _described(
    operation_id: str, errors: Sequence[int], refusals: Mapping[int, Refusal], **told: Any
) -> dict[str, Any]:
    return vitals_operation(operation_id, errors=errors, refusals=refusals, **told)


MEASURE = with_forms(
    _described(
        "measurePulse", (400, 403, 404, 408, 413, 415, 422, 503), MEASURE_REFUSALS, answer=(200, MeasuredAnswer)
    ),
    _FRAMES_FORM,
    has_json=False,
)
ANALYZE = with_forms(
    _described(
        "analyzeVitals",
        (403, 404, 408, 415, 422, 503),
        ANALYZE_REFUSALS,
        answer=(200, ReportAnswer),
        body=SentTraces,
        examples=EXAMPLES,
    ),
    _VIDEO_FORM,
)
TRY = with_forms(
    _described(
        "tryVitals",
        (408, 415, 422, 429, 503),
        TRY_REFUSALS,
        answer=(200, TriedAnswer),
        body=SentTraces,
        examples=EXAMPLES,
        security=None,
    ),
    _FRAMES_FORM,
)
MAKE_STREAM = _described(
    "createVitalsSession",
    (403, 404, 503),
    STREAM_REFUSALS,
    answer=(201, MadeStreamAnswer),
    body=WantedStream,
    is_body_required=False,
    examples=STREAM_EXAMPLES,
)
TRY_STREAM = _described(
    "tryVitalsSession", (429, 503), TRY_STREAM_REFUSALS, answer=(201, MadeStreamAnswer), security=None
)
READ_STREAM = _described("readVitalsSession", (404,), NO_SUCH_THING, answer=(200, StreamAnswer))
LIST_MEASUREMENTS = _described(
    "listMeasurements", (400,), PAGE_REFUSALS, answer=(200, MeasurementsAnswer), parameters=PAGING
)
READ_MEASUREMENT = _described("readMeasurement", (404,), NO_SUCH_THING, answer=(200, MeasurementAnswer))
DELETE_MEASUREMENT = _described("deleteMeasurement", (404,), NO_SUCH_THING, answer=(200, Deleted))
