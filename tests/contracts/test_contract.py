"""The published contract, asked of the real app: every operation, every documented status, every body and header.

The same is then asked of the server's own `/openapi.json`, which says more: it must say nothing that is not so.
"""

import asyncio
import functools
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast

import cv2
import httpx2
import jsonschema  # type: ignore[import-untyped]  # it comes without types
import numpy as np
import pytest
import referencing
from referencing.jsonschema import DRAFT202012

from lifesign.bots import ending
from lifesign.bots.outcomes import Outcome, Parked
from lifesign.channels.delivery import Courier
from lifesign.db import StorageUnavailable, WriterBusy
from lifesign.diagnosis.service import Diagnoses
from lifesign.documents.texts import SCHEMAS
from lifesign.envelopes.vitals import is_vitals
from lifesign.http.context import Context
from lifesign.projects import service as projects
from lifesign.projects.rules import Codes
from lifesign.projects.service import Order
from lifesign.telemetry.receiver import Receiver
from lifesign.telemetry.store import StoreUnavailable
from lifesign.vitals import analyze_traces
from lifesign.vitals import service as measurements
from lifesign.vitals.arrivals import Arrivals, Pace
from lifesign.vitals.service import Vitals
from lifesign.vitals.sessions import Sessions
from lifesign.vitals.workers import Workers
from tests.bots.asking import bot, configured
from tests.bots.asking_runs import claimed, triggered
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer, ledger_peer
from tests.systems.machines import machine
from tests.vitals.clips import pulsing

HEARTBEATS: Json = json.loads((Path(__file__).parent / "heartbeatkit.openapi.json").read_text())
SYSTEMS: Json = json.loads((Path(__file__).parent / "systems.openapi.json").read_text())
BOTS: Json = json.loads((Path(__file__).parent / "bots.openapi.json").read_text())
TELEMETRY: Json = json.loads((Path(__file__).parent / "loopkit.openapi.json").read_text())
VITALS: Json = json.loads((Path(__file__).parent / "beam.openapi.json").read_text())
# The only times that have no milliseconds; the own description says how they look.
del VITALS["components"]["schemas"]["TimeSeriesBucket"]["properties"]["bucket"]["format"]
UNKNOWN = {
    "heartbeats": "hb_" + "0" * 32,
    "policies": "pol_" + "0" * 32,
    "channels": "ch_" + "0" * 32,
    "incidents": "inc_" + "0" * 32,
    "notifications": "ntf_" + "0" * 32,
    "keys": "key_" + "0" * 32,
    "maintenance": "mw_" + "0" * 32,
    "systems": "00000000-0000-7000-8000-000000000000",
    "sessions": "nobody",
    "vitals": "nobody",
}
TOO_LARGE = {"name": "x" * 262_144}
LARGEST_CALL = 1024 * 1024
LARGEST_INVENTORY = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Request:
    """What to send; `{name}` in the path, and as a value in the body, stands for the id of a prepared object.

    is_of_machine: sent with the credentials of a system, not with a key.
    key: name of the prepared key to send, `none` for none at all; the admin's when empty.
    parts: which files of `FILES` to send, as multipart, with the members of the body as fields.
    kind: what the body is said to be.
    """

    method: str
    path: str
    body: Any = None
    times: int = 1
    is_of_machine: bool = False
    key: str = ""
    kind: str = "application/json"
    parts: str = ""

    @property
    def url(self) -> str:
        """The path on the server; that of the Heartbeats API is written without its prefix."""
        return self.path if self.path.startswith("/api/") else f"/v1{self.path}"


@dataclass(frozen=True, slots=True)
class Operation:
    """How to be answered as well as possible, and, where that is possible, with 400 and other refusals."""

    good: Request
    bad: Request | None = None
    refused: dict[int, Request] = field(default_factory=dict)


def _of(method: str, path: str, body: Any = None, *, bad: Any = None, **refused: Request) -> Operation:
    """An operation whose 400 is provoked by another body or another path's state."""
    if isinstance(bad, str):
        worse: Request | None = Request(method, bad, body)
    else:
        worse = None if bad is None else Request(method, path, bad)
    return Operation(Request(method, path, body), worse, {int(name[1:]): each for name, each in refused.items()})


def _of_machine(method: str, path: str, body: Any = None, *, bad: Any = None, **refused: Request) -> Operation:
    """The same, asked by a machine."""
    told = _of(method, path, body, bad=bad, **refused)
    return Operation(
        replace(told.good, is_of_machine=True),
        told.bad and replace(told.bad, is_of_machine=True),
        {status: replace(each, is_of_machine=True) for status, each in told.refused.items()},
    )


def _of_bots(
    method: str, path: str, body: Any = None, *, wrong: Any, missing: Any = None, late: Any = None
) -> Operation:
    """An operation of the Bots API.

    wrong, missing, late: a query, or members of the body, that are refused with 400, 404, 409.
    """
    is_asked = isinstance(wrong, str)
    url = f"/bot{path}"
    good = Request(method, f"{url}?project_id=default&{body or ''}" if is_asked else url, None if is_asked else body)
    refused = {429: good}

    def but(other: Any) -> Request:
        if is_asked:
            return replace(good, path=f"{url}?project_id=default&{other}")
        return replace(good, body=body | other)

    if missing is not None:
        refused[404] = but(missing)
    if late is not None:
        refused[409] = but(late)
    if not is_asked:
        refused[413] = replace(good, body=body | {"filler": "x" * LARGEST_CALL})
    return Operation(good, but(wrong), refused)


def _faces() -> list[tuple[str, tuple[str, bytes, str]]]:
    """Ten seconds of a face with a pulse."""
    encoded = (
        cv2.imencode(".jpg", each[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95]) for each in pulsing(np.arange(81) / 8)
    )
    return [("frame", (f"{index}.jpg", bytes(each[1]), "image/jpeg")) for index, each in enumerate(encoded)]


FILES: dict[str, Callable[[], Any]] = {
    "faces": functools.cache(_faces),
    "one": lambda: [("frame", ("0.jpg", b"\xff\xd8\xff", "image/jpeg"))],
    "text": lambda: [("frame", ("0.txt", b"text", "text/plain"))],
    "large": lambda: [("frame", ("0.jpg", b"\xff\xd8\xff" + bytes(4 << 20), "image/jpeg"))],
    "text video": lambda: [("video", ("0.txt", b"text of some length", "text/plain"))],
    "broken video": lambda: [("video", ("0.mkv", b"\x1aE\xdf\xa3" + bytes(100), "video/x-matroska"))],
}


def _measured(good: dict[str, str], **told: Any) -> Request:
    return Request("POST", "/api/rppg/measure", good, **told)


BAD_LIMIT = "?limit=0"
NEW_CHANNEL = {"name": "Hook", "type": "webhook", "config": {"url": "{hook}"}}
NEW_POLICY = {"name": "Critical", "steps": [{"channels": ["{channel}"], "wait": 300, "message": "{{name}}"}]}
NEW_HEARTBEAT = {
    "name": "Nightly Export",
    "mode": "recurring",
    "interval": 3600,
    "policy": "{policy}",
    "namespace": "prod",
    "metadata": {"rows": 7},
}
REPORT = analyze_traces([[150, 110, 90]] * 100, fps=10).to_dict()
TRACE = "1" * 32
SPANS = {"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": TRACE, "spanId": "1" * 16, "name": "chat"}]}]}]}
BOT = {"project_id": "default", "bot_id": "{bot}"}
BUSY = {"project_id": "default", "bot_id": "{pull_bot}", "heartbeat_id": "{busy_schedule}"}
RUN = {"project_id": "default", "run_id": "{bot_run}"}
HELD = RUN | {"run_id": "{held_run}", "lease_token": 1}
SCHEDULE = BOT | {"heartbeat_id": "{schedule}"}
TRACES = {"fps": 10, "rgb": [[150, 110 + (n % 8), 90] for n in range(100)]}
WATCH = {"heartbeat": "{active}"}
NEW_WINDOW = {"name": "Reboot", "schedule": "0 3 * * SUN", "duration": 3600, "tags": ["db"]}

OPERATIONS: dict[str, Operation] = {
    "createHeartbeat": _of("POST", "/heartbeats", NEW_HEARTBEAT, bad={"name": "x", "mode": "weekly"}),
    "listHeartbeats": _of("GET", "/heartbeats?status=active", bad="/heartbeats?status=dead"),
    "getHeartbeat": _of("GET", "/heartbeats/{active}", bad="/heartbeats/{active}?recentPeriods=maybe"),
    "updateHeartbeat": _of("PATCH", "/heartbeats/{active}", {"grace": 5}, bad={"grace": -1}),
    "deleteHeartbeat": _of("DELETE", "/heartbeats/{active}"),
    "checkin": _of("POST", "/heartbeats/{active}/checkin", {"metadata": {"rows": 8}}, bad={"healthy": "yes"}),
    "ackHeartbeat": _of("POST", "/heartbeats/{firing}/ack", {"message": "on it"}, bad="/heartbeats/{active}/ack"),
    "pauseHeartbeat": _of("POST", "/heartbeats/{active}/pause", bad="/heartbeats/{paused}/pause"),
    "resumeHeartbeat": _of("POST", "/heartbeats/{paused}/resume", bad="/heartbeats/{active}/resume"),
    "listHeartbeatEvents": _of("GET", "/heartbeats/{firing}/events", bad="/heartbeats/{firing}/events?type=nap"),
    "snoozeHeartbeat": _of("POST", "/heartbeats/{active}/snooze", {"seconds": 60}, bad={"seconds": 0}),
    "unsnoozeHeartbeat": _of("DELETE", "/heartbeats/{snoozed}/snooze", bad="/heartbeats/{active}/snooze"),
    "startRun": _of(
        "POST",
        "/heartbeats/{active}/runs",
        {"lease": 60},
        bad={"lease": 0},
        _200=Request("POST", "/heartbeats/{active}/runs", {"runId": "{run}"}),
    ),
    "reportProgress": _of("POST", "/heartbeats/{active}/runs/{run}/progress", {"message": "half"}, bad={"message": 1}),
    "finishRun": _of("POST", "/heartbeats/{active}/runs/{run}/finish", {"metadata": {"rows": 9}}, bad={"ok": "yes"}),
    "listRuns": _of("GET", "/heartbeats/{active}/runs", bad="/heartbeats/{active}/runs?status=lost"),
    "getRun": _of("GET", "/heartbeats/{active}/runs/{run}"),
    "createMaintenance": _of("POST", "/maintenance", NEW_WINDOW, bad={"name": "x", "all": True}),
    "listMaintenance": _of("GET", "/maintenance", bad="/maintenance" + BAD_LIMIT),
    "getMaintenance": _of("GET", "/maintenance/{window}"),
    "updateMaintenance": _of("PATCH", "/maintenance/{window}", {"name": "Calm"}, bad={"duration": 1}),
    "deleteMaintenance": _of("DELETE", "/maintenance/{window}"),
    "createPolicy": _of("POST", "/policies", NEW_POLICY, bad={"name": "x", "steps": []}),
    "listPolicies": _of("GET", "/policies", bad="/policies" + BAD_LIMIT),
    "getPolicy": _of("GET", "/policies/{policy}"),
    "updatePolicy": _of("PATCH", "/policies/{policy}", {"name": "Calm"}, bad={"name": ""}),
    "deletePolicy": _of(
        "DELETE",
        "/policies/{policy}?force=true",
        bad="/policies/{policy}?force=maybe",
        _409=Request("DELETE", "/policies/{policy}"),
    ),
    "createChannel": _of("POST", "/channels", NEW_CHANNEL, bad={"name": "x", "type": "webhook", "config": {}}),
    "listChannels": _of("GET", "/channels", bad="/channels" + BAD_LIMIT),
    "getChannel": _of("GET", "/channels/{channel}"),
    "updateChannel": _of("PATCH", "/channels/{channel}", {"name": "Other"}, bad={"type": "pigeon"}),
    "deleteChannel": _of(
        "DELETE",
        "/channels/{channel}?force=true",
        bad="/channels/{channel}?force=maybe",
        _409=Request("DELETE", "/channels/{channel}"),
    ),
    # Ten tests a minute are allowed, and the good request was one of them.
    "testChannel": _of("POST", "/channels/{channel}/test", _429=Request("POST", "/channels/{channel}/test", times=10)),
    "createApiKey": _of("POST", "/keys", {"name": "jobs", "expiresAt": "2099-01-01T00:00:00+01:00"}, bad={"name": 1}),
    "listApiKeys": _of("GET", "/keys", bad="/keys" + BAD_LIMIT),
    "deleteApiKey": _of("DELETE", "/keys/{key}"),
    # Beyond the contract
    "heartbeatHistory": _of("GET", "/heartbeats/{active}/history", bad="/heartbeats/{active}/history?days=0"),
    "readOwnKey": _of("GET", "/whoami"),
    "compareChannel": _of(
        "POST",
        "/channels/{channel}/compare",
        {"type": "webhook", "config": {"url": "{hook}"}},
        bad={"type": "webhook", "config": {}},
    ),
    "importHeartbeatEvents": _of(
        "POST",
        "/heartbeats/{active}/events/import",
        {"events": [{"type": "firing", "createdAt": "2025-12-31T10:00:00Z"}]},
        bad={"events": [{"type": "nap", "createdAt": "2025-12-31T10:00:00Z"}]},
    ),
    "listIncidents": _of("GET", "/incidents", bad="/incidents?status=shut"),
    "getIncident": _of("GET", "/incidents/{incident}"),
    "getSettings": _of("GET", "/settings"),
    "updateSettings": _of(
        "PATCH", "/settings", {"fallbackChannel": "{channel}"}, bad={"fallbackChannel": UNKNOWN["channels"]}
    ),
    "listNotifications": _of("GET", "/notifications", bad="/notifications?status=lost"),
    "retryNotification": _of("POST", "/notifications/{dead}/retry", bad="/notifications/{sent}/retry"),
    # Projects
    "provisionProject": _of(
        "POST",
        "/provision",
        {"project_name": "a new shop"},
        bad={"project_name": 7},
        _200=Request("POST", "/provision", {"project_name": "shop"}, key="agent"),
        _401=Request("POST", "/provision", {"project_name": "shop"}, key="none"),
        _403=Request("POST", "/provision", {"project_name": "shop"}),
        _429=Request("POST", "/provision", {"project_name": "one too many"}),
    ),
    "exportTraces": _of(
        "POST",
        "/traces",
        SPANS,
        bad={"resourceSpans": {}},
        _413=Request("POST", "/traces", {"a": "x" * 20_971_520}),
        _415=Request("POST", "/traces", SPANS, kind="text/plain"),
        _429=Request("POST", "/traces", SPANS, key="full"),
    ),
    "readTelemetry": _of("GET", "/telemetry", bad="/telemetry" + BAD_LIMIT),
    "listSessions": _of("GET", "/sessions", bad="/sessions" + BAD_LIMIT),
    "readSession": _of("GET", "/sessions/{trace}", bad="/sessions/{trace}" + BAD_LIMIT),
    # Diagnosis
    "diagnose": _of("POST", "/runs/diagnose", {"since_minutes": 60}, bad={"since_minutes": 0}),
    "verify": _of(
        "POST",
        "/runs/verify",
        {"packet_id": "{packet}"},
        bad={},
        _404=Request("POST", "/runs/verify", {"packet_id": "pkt_0"}),
    ),
    "listPackets": _of("GET", "/runs", bad="/runs" + BAD_LIMIT),
    "readPacket": _of("GET", "/runs/{packet}", _404=Request("GET", "/runs/pkt_0"), _405=Request("GET", "/runs/verify")),
    "listIssues": _of("GET", "/issues", bad="/issues" + BAD_LIMIT),
    # Overviews
    "readDashboard": _of("GET", "/dashboard"),
    "readReport": _of("GET", "/reports/latest.md"),
    "signUp": _of("POST", "/signup", {}, bad=[], _429=Request("POST", "/signup")),
    "upgradeProject": Operation(
        Request("POST", "/signup/upgrade", {"code": "{upgrade}"}, key="agent"),
        Request("POST", "/signup/upgrade", {"code": " "}, key="agent"),
        {
            401: Request("POST", "/signup/upgrade", {"code": "0"}, key="none"),
            403: Request("POST", "/signup/upgrade", {"code": "0"}, key="agent"),
        },
    ),
    "recoverProject": _of(
        "POST",
        "/recover",
        {"project_id": "{project}", "recovery_code": "{recovery}"},
        bad={"project_id": "{project}"},
        _403=Request("POST", "/recover", {"project_id": "{project}", "recovery_code": "0"}),
        _404=Request("POST", "/recover", {"project_id": "nobody-00000000", "recovery_code": "{nobodys}"}),
        _429=Request("POST", "/recover", {"project_id": "a", "recovery_code": "b"}),
    ),
    # Systems
    "systemHeartbeat": _of_machine(
        "POST",
        "/api/systems/heartbeat",
        {"system_id": "{system}"},
        bad={"system_id": 42},
        _403=Request("POST", "/api/systems/heartbeat", {"system_id": UNKNOWN["systems"]}),
    ),
    "systemInfo": _of_machine("GET", "/api/systems/info"),
    "sendInventory": _of_machine(
        "POST",
        "/api/systems/inventory",
        {"os": {"version": "13"}},
        bad=[],
        _413=Request("POST", "/api/systems/inventory", {"a": "x" * LARGEST_INVENTORY}),
    ),
    "createSystem": _of(
        "POST",
        "/api/systems",
        {"name": "db2", "tags": ["prod"]},
        bad={"name": ""},
        _409=Request("POST", "/api/systems", {"name": "db1", "id": "{system}"}),
    ),
    "listSystems": _of("GET", "/api/systems?limit=1", bad="/api/systems" + BAD_LIMIT),
    "getSystem": _of("GET", "/api/systems/{system}"),
    "updateSystem": _of("PATCH", "/api/systems/{system}", {"notes": "rack 7"}, bad={"interval": 9}),
    "deleteSystem": _of("DELETE", "/api/systems/{system}"),
    "regenerateSystemSecret": _of("POST", "/api/systems/{system}/regenerate-secret"),
    "suspendSystem": _of("POST", "/api/systems/{system}/suspend"),
    "reactivateSystem": _of("POST", "/api/systems/{system}/reactivate"),
    "systemTotals": _of("GET", "/api/systems/totals?timeout=60", bad="/api/systems/totals?timeout=61"),
    "systemTrend": _of("GET", "/api/systems/trend?period=365", bad="/api/systems/trend?period=8"),
    "createBot": _of_bots("POST", "/create", BOT | {"name": "b"}, wrong={"name": ""}),
    "readBot": _of_bots("GET", "/read", "bot_id={bot}", wrong="bot_id=", missing="bot_id=99"),
    "listBots": _of_bots("GET", "/readall", "page=1", wrong="page=0"),
    "updateBot": _of_bots("PUT", "/update", BOT | {"heartbeat": 0}, wrong={"status": 7}, missing={"bot_id": 99}),
    "resetBot": _of_bots("POST", "/reset", BOT, wrong={"bot_id": None}, missing={"bot_id": 99}),
    "deleteBot": _of_bots("DELETE", "/delete", "bot_id={bot}", wrong="bot_id=", missing="bot_id=99"),
    "configureHeartbeat": _of_bots(
        "POST", "/heartbeat/configure", BOT | {"prompt": "p"}, wrong={"timezone": "Mars"}, missing={"bot_id": 99}
    ),
    "listBotHeartbeats": _of_bots(
        "GET", "/heartbeat/readall", "bot_id={bot}", wrong="bot_id={bot}&limit=0", missing="bot_id=99"
    ),
    "getBotHeartbeat": _of_bots(
        "GET",
        "/heartbeat/read",
        "bot_id={bot}&heartbeat_id={schedule}",
        wrong="bot_id={bot}",
        missing="bot_id={bot}&heartbeat_id=sch_0",
    ),
    "enableHeartbeat": _of_bots(
        "POST", "/heartbeat/enable", SCHEDULE, wrong={"heartbeat_id": ""}, missing={"heartbeat_id": "sch_0"}
    ),
    "disableHeartbeat": _of_bots(
        "POST", "/heartbeat/disable", SCHEDULE, wrong={"heartbeat_id": ""}, missing={"heartbeat_id": "sch_0"}
    ),
    "deleteBotHeartbeat": _of_bots(
        "DELETE",
        "/heartbeat/delete",
        "bot_id={bot}&heartbeat_id={schedule}",
        wrong="bot_id={bot}",
        missing="bot_id={bot}&heartbeat_id=sch_0",
    ),
    "triggerHeartbeat": _of_bots(
        "POST", "/heartbeat/trigger", BUSY, wrong={"heartbeat_id": None}, missing={"heartbeat_id": "sch_0"}
    ),
    "getHeartbeatLogs": _of_bots(
        "GET", "/heartbeat/logs", "bot_id={bot}", wrong="bot_id={bot}&status=failed", missing="bot_id=99"
    ),
    "getHeartbeatStats": _of_bots(
        "GET", "/heartbeat/stats", "bot_id={bot}", wrong="bot_id={bot}&days=0", missing="bot_id=99"
    ),
    "getBotRun": _of_bots("GET", "/heartbeat/run", "run_id={bot_run}", wrong="run_id=", missing="run_id=run_0"),
    "getBotTranscript": _of_bots(
        "GET", "/heartbeat/transcript", "run_id={bot_run}", wrong="run_id=", missing="run_id=run_0"
    ),
    "cancelBotRun": _of_bots("POST", "/heartbeat/cancel", RUN, wrong={"run_id": None}, missing={"run_id": "run_0"}),
    "approveBotRun": _of_bots(
        "POST",
        "/heartbeat/approve",
        RUN | {"run_id": "{parked_run}", "approve": True},
        wrong={"approve": None},
        missing={"run_id": "run_0"},
        late={"run_id": "{bot_run}"},
    ),
    "claimBotRun": _of_bots(
        "POST", "/runs/claim", {"project_id": "default"}, wrong={"wait_seconds": 31}, missing={"bot_id": 99}
    ),
    "beatBotRun": _of_bots(
        "POST",
        "/runs/heartbeat",
        HELD,
        wrong={"lease_token": None},
        missing={"run_id": "run_0"},
        late={"lease_token": 9},
    ),
    "finishBotRun": _of_bots(
        "POST",
        "/runs/finish",
        HELD | {"status": "success", "response": "Quiet."},
        wrong={"status": None},
        missing={"run_id": "run_0"},
        late={"lease_token": 9},
    ),
    "stopBots": _of_bots("POST", "/stop", {"project_id": "default"}, wrong={"cancel_running": "perhaps"}),
    "resumeBots": _of_bots("POST", "/resume", {"project_id": "default"}, wrong={"project_id": None}),
    "previewHeartbeat": _of_bots(
        "POST", "/heartbeat/preview", {"project_id": "default"}, wrong={"interval_minutes": 0}
    ),
    "listSubscribers": _of_bots("GET", "/subscriber/readall", "page=1", wrong="per_page=101"),
    "createSubscriber": _of_bots(
        "POST", "/subscriber/create", {"project_id": "default", "name": "A"}, wrong={"external_id": 7}
    ),
    "readBotSettings": _of_bots("GET", "/settings", "", wrong="project_id="),
    "changeBotSettings": _of_bots("PUT", "/settings", {"project_id": "default"}, wrong={"plan": "gold"}),
    "listInventories": _of(
        "GET", "/api/systems/{system}/inventory?limit=1", bad="/api/systems/{system}/inventory?limit=0"
    ),
    "getInventory": _of("GET", "/api/systems/{system}/inventory/latest"),
    "listInventoryChanges": _of(
        "GET", "/api/systems/{system}/inventory/changes?limit=1", bad="/api/systems/{system}/inventory/changes?limit=0"
    ),
    # Vitals
    "requestApiKey": _of(
        "POST",
        "/api/keys",
        {"name": "Jane Smith", "email": "Jane@x.io", "company": "HealthApp Inc", "use_case": "telehealth"},
        bad={"name": "Jane Smith", "email": "nowhere"},
        _429=Request("POST", "/api/keys", {"name": "Jane Smith", "email": "{address_with_three}"}),
    ),
    "readOwnVitalsKey": _of("GET", "/api/keys/me"),
    "rotateVitalsKey": _of("POST", "/api/keys/me/rotate"),
    "revokeVitalsKey": _of("DELETE", "/api/keys/me"),
    "measurePulse": Operation(
        _measured({"duration_ms": "10000"}, parts="faces"),
        _measured({"duration_ms": "9999"}, parts="one"),
        {
            403: _measured({"watch": '{"heartbeat":"active"}'}, parts="one", key="none"),
            404: _measured({"watch": '{"heartbeat":"nobody"}'}, parts="one"),
            413: _measured({}, parts="large"),
            415: _measured({}, parts="text"),
            422: _measured({}, parts="one"),
        },
    ),
    "analyzeVitals": _of(
        "POST",
        "/api/vitals/analyze",
        TRACES,
        bad=TRACES | {"t_ms": [0, 0]},
        _403=Request("POST", "/api/vitals/analyze", TRACES | {"watch": WATCH}, key="none"),
        _404=Request("POST", "/api/vitals/analyze", TRACES | {"watch": {"heartbeat": "nobody"}}),
        _413=Request("POST", "/api/vitals/analyze", TRACES | {"rgb": [[1, 2, 3]] * 36_001}),
        _415=Request("POST", "/api/vitals/analyze", {}, parts="text video"),
        _422=Request("POST", "/api/vitals/analyze", {}, parts="broken video"),
    ),
    "tryVitals": _of(
        "POST",
        "/api/demo/analyze",
        TRACES,
        bad=TRACES | {"method": "best"},
        _413=Request("POST", "/api/demo/analyze", {}, parts="large"),
        _415=Request("POST", "/api/demo/analyze", {}, parts="text"),
        _422=Request("POST", "/api/demo/analyze", {}, parts="one"),
        _429=Request("POST", "/api/demo/analyze", {}, parts="one", times=11),
    ),
    "createVitalsSession": _of(
        "POST",
        "/api/vitals/sessions",
        {"max_s": 60},
        bad={"max_s": 9},
        _403=Request("POST", "/api/vitals/sessions", {"watch": WATCH}, key="none"),
        _404=Request("POST", "/api/vitals/sessions", {"watch": {"heartbeat": "nobody"}}),
    ),
    "tryVitalsSession": _of("POST", "/api/demo/session", _429=Request("POST", "/api/demo/session", times=11)),
    "readVitalsSession": _of("GET", "/api/vitals/sessions/{stream}"),
    "listMeasurements": _of("GET", "/api/vitals/measurements?limit=1", bad="/api/vitals/measurements" + BAD_LIMIT),
    "readMeasurement": _of("GET", "/api/vitals/measurements/{measurement}"),
    "deleteMeasurement": _of("DELETE", "/api/vitals/measurements/{measurement}"),
    "getDashboardOverview": _of("GET", "/api/dashboard/overview"),
    "getDashboardMetrics": _of("GET", "/api/dashboard/metrics?range=24h", bad="/api/dashboard/metrics?range=1h"),
    "getDashboardRecentErrors": _of(
        "GET", "/api/dashboard/recent-errors?limit=1", bad="/api/dashboard/recent-errors" + BAD_LIMIT
    ),
}
SERVER = {
    "health": "/health",
    "ready": "/ready",
    "metrics": "/metrics",
    "llms": "/llms.txt",
    "quickstart": "/quickstart.md",
    "agents": "/agents.md",
    "contact": "/contact.json",
    **{f"schema-{name}": f"/schema/{name}.json" for name in sorted(SCHEMAS)},
}


def _operations(document: Json) -> dict[str, tuple[str, str, Json]]:
    """Of each operation: verb, path and description."""
    return {
        each["operationId"]: (verb.upper(), path, each)
        for path, item in document["paths"].items()
        for verb, each in item.items()
    }


@dataclass(frozen=True, slots=True)
class Published:
    """An operation of a published contract."""

    verb: str
    path: str
    described: Json
    document: Json


# The contract of this API names no operations, and describes their answers by status only.
TELEMETRY_PATHS = {
    "provisionProject": "/v1/provision",
    "upgradeProject": "/v1/signup/upgrade",
    "recoverProject": "/v1/recover",
    "exportTraces": "/v1/traces",
    "readTelemetry": "/v1/telemetry",
    "listSessions": "/v1/sessions",
    "readSession": "/v1/sessions/{id}",
    "diagnose": "/v1/runs/diagnose",
    "readDashboard": "/v1/dashboard",
    "readReport": "/v1/reports/latest.md",
}
# Two APIs have operations of these names; on one server each is called by one.
BOTS_NAMES = {
    "listHeartbeats": "listBotHeartbeats",
    "getHeartbeat": "getBotHeartbeat",
    "deleteHeartbeat": "deleteBotHeartbeat",
}
PUBLISHED = {
    operation_id: Published(verb, prefix + path, described, document)
    for document, prefix, names in (
        (HEARTBEATS, "/v1", {}),
        (SYSTEMS, "/api", {}),
        (VITALS, "", {}),
        (BOTS, "/v1", BOTS_NAMES),
    )
    for published_id, (verb, path, described) in _operations(document).items()
    if (operation_id := names.get(published_id, published_id)) in OPERATIONS
} | {
    operation_id: Published(verb.upper(), path, described, TELEMETRY)
    for operation_id, path in TELEMETRY_PATHS.items()
    for verb, described in TELEMETRY["paths"][path].items()
}


def test_the_table_knows_every_operation_of_the_contract_and_its_verb() -> None:
    assert len(PUBLISHED) == 54
    for operation_id, published in PUBLISHED.items():
        good, verb, path = OPERATIONS[operation_id].good, published.verb, published.path
        asked = good.url.partition("?")[0]
        assert (good.method, re.sub(r"\{\w+\}", "{}", asked)) == (verb, re.sub(r"\{\w+\}", "{}", path))


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerPeer]:
    with ledger_peer(tmp_path_factory.mktemp("ledger")) as started:
        yield started


async def test_the_servers_own_description_has_every_operation_and_status_of_the_contract(lifesign: Lifesign) -> None:
    own = _operations(await _description(lifesign))

    for operation_id, published in PUBLISHED.items():
        assert own[operation_id][:2] == (published.verb, published.path)
        assert set(own[operation_id][2]["responses"]) >= set(published.described["responses"])


async def test_the_tables_know_every_operation_that_the_server_describes(lifesign: Lifesign) -> None:
    assert sorted(_operations(await _description(lifesign))) == sorted([*OPERATIONS, *SERVER])


@pytest.mark.parametrize("operation_id", sorted(OPERATIONS))
async def test_every_described_answer_can_be_had_and_is_as_the_contract_and_the_own_description_say(
    lifesign: Lifesign, ledger: LedgerPeer, operation_id: str
) -> None:
    document = await _description(lifesign)
    described = _operations(document)[operation_id][2]
    published = PUBLISHED.get(operation_id)
    names = await _prepared(lifesign, ledger, _api_of(OPERATIONS[operation_id].good))

    for status in _in_order(described["responses"]):
        answer = await _provoke(lifesign, operation_id, status, names)

        assert answer.status_code == status, f"{operation_id} {status}: {answer.text}"
        _check(answer, _response(document, described, status), document)
        has_bodies = published is not None and published.document is not TELEMETRY
        if has_bodies and published is not None and str(status) in published.described["responses"]:
            _check(answer, _response(published.document, published.described, status), published.document)
        if status >= 400:
            _check_examples(answer.json(), described["responses"][str(status)], document)


@pytest.mark.parametrize("operation_id", sorted(SERVER))
async def test_what_the_server_tells_of_itself_is_as_described(lifesign: Lifesign, operation_id: str) -> None:
    document = await _description(lifesign)
    described = _operations(document)[operation_id][2]

    answer = await lifesign.client(None).get(SERVER[operation_id])

    assert answer.status_code == 200
    _check(answer, _response(document, described, 200), document)


async def test_a_server_without_its_storage_says_so_as_described(lifesign: Lifesign) -> None:
    document = await _description(lifesign)
    described = _operations(document)["ready"][2]

    with _failing(lifesign, StorageUnavailable("gone")):
        answer = await lifesign.client(None).get("/ready")

    assert answer.status_code == 503
    assert answer.json()["ready"] is False
    _check(answer, _response(document, described, 503), document)


async def test_every_example_of_a_body_can_be_pasted(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    names = await _prepared(lifesign, ledger)
    example_channel = "ch_0199e6a1b2c37d4e8f00112233445566"
    tried = 0

    for operation_id, (_, path, described) in _operations(await _description(lifesign)).items():
        content = described.get("requestBody", {}).get("content", {}).get("application/json", {})
        for title, example in content.get("examples", {}).items():
            # The one thing a reader has to fill in is the id of a channel of their own.
            text = json.dumps(example["value"]).replace(example_channel, names["channel"])
            good = OPERATIONS[operation_id].good
            url = path.replace("{idOrSlug}", names["active"]).replace("{id}", names["window"])
            url = url.replace("{system}", names["system"])
            headers = {"Content-Type": "application/json", "X-API-Key": names["vitals"]}
            if good.is_of_machine:
                headers["Authorization"] = names["basic"]
            answer = await lifesign.http.request(good.method, url, content=text, headers=headers)
            assert answer.is_success, f"{operation_id}, {title}: {answer.text}"
            tried += 1

    assert tried == 34


# Asking -------------------------------------------------------------------------------------------------------------
Api = Literal["heartbeats", "systems", "bots", "telemetry", "vitals"]
_TELEMETRY_NOUNS = {"provision", "traces", "telemetry", "sessions", "runs", "issues", "signup", "recover"}


def _api_of(good: Request) -> Api | None:
    """Whose things an operation needs; None: those of all, which lists and overviews show."""
    path = good.path.partition("?")[0]
    if path.startswith("/bot/"):
        return "bots"
    if path.startswith("/api/systems"):
        return "systems"
    if is_vitals(path):
        return "vitals"
    if path.split("/")[1] in _TELEMETRY_NOUNS:
        return "telemetry"
    return None if good.method == "GET" and "{" not in path else "heartbeats"


async def _prepared(lifesign: Lifesign, ledger: LedgerPeer, api: Api | None = None) -> dict[str, str]:
    """One of everything, or of everything that an API has: names for paths and bodies."""
    names: dict[str, str] = {}
    if api in {None, "heartbeats"}:
        names |= await _with_heartbeats(lifesign, ledger)
    if api in {None, "systems"}:
        names |= await _with_a_system(lifesign)
    if api in {None, "bots"}:
        names |= await _with_bots(lifesign)
    if api in {None, "telemetry"}:
        names |= await _with_telemetry(lifesign)
    if api in {None, "vitals"}:
        names |= await _with_vitals(lifesign, names.get("active"))
    return names


async def _with_heartbeats(lifesign: Lifesign, ledger: LedgerPeer) -> dict[str, str]:
    channel = await lifesign.webhook(f"{ledger.url}/hook/contract")
    policy = await lifesign.policy({"channels": [channel["id"]]})
    silent = await lifesign.heartbeat("Silent", interval=1, grace=0, policy=policy["id"], channels=[channel["id"]])
    await lifesign.advance(1)
    ledger.script("third", {"status": 410})
    gone = await lifesign.webhook(f"{ledger.url}/hook/third", "gone")
    unheard = await lifesign.heartbeat("Unheard", channels=[gone["id"]])
    await lifesign.check_in(unheard["id"], healthy=False)
    await lifesign.advance(0)
    paused = await lifesign.heartbeat("Paused")
    await lifesign.ask("POST", f"/v1/heartbeats/{paused['id']}/pause")
    active = await lifesign.heartbeat("Active", policy=policy["id"], metadata={"rows": 7}, tags=["db"], description="d")
    snoozed = await lifesign.heartbeat("Snoozed")
    await lifesign.ask("POST", f"/v1/heartbeats/{snoozed['id']}/snooze", {"seconds": 60})
    run = await lifesign.ask("POST", f"/v1/heartbeats/{active['id']}/runs", {"maxDuration": 600}, expect=201)
    await lifesign.ask("POST", f"/v1/heartbeats/{active['id']}/runs", {"runId": "ended"}, expect=201)
    await lifesign.ask("POST", f"/v1/heartbeats/{active['id']}/runs/ended/finish")
    window = await lifesign.ask("POST", "/v1/maintenance", NEW_WINDOW, expect=201)
    key = await lifesign.ask("POST", "/v1/keys", {"name": "old", "expiresAt": "2099-01-01T00:00:00Z"}, expect=201)
    async with lifesign.client(key["token"]) as once:
        assert (await once.get("/v1/keys")).status_code == 200
    await lifesign.advance(1)
    return {
        "channel": channel["id"],
        "policy": policy["id"],
        "firing": silent["id"],
        "incident": (await lifesign.get(silent["id"]))["incident"],
        "sent": await _notification(lifesign, "sent"),
        "dead": await _notification(lifesign, "dead"),
        "paused": paused["id"],
        "active": active["id"],
        "key": key["id"],
        "snoozed": snoozed["id"],
        "run": run["runId"],
        "window": window["id"],
        "hook": f"{ledger.url}/hook/contract",
    }


async def _with_a_system(lifesign: Lifesign) -> dict[str, str]:
    db1 = await machine(lifesign)
    await db1.beat()
    for document in ({"os": {"version": "11"}}, {"os": {"version": "12", "name": "Debian"}}):
        assert (await db1.send(document, path="inventory")).status_code == 200
    return {"system": db1.id, "basic": db1.auth}


async def _with_bots(lifesign: Lifesign) -> dict[str, str]:
    night_watch = await bot(lifesign)
    schedule = await configured(lifesign, night_watch["id"])
    return await _bot_runs(lifesign) | {"bot": night_watch["uuid"], "schedule": schedule["uuid"]}


async def _with_telemetry(lifesign: Lifesign) -> dict[str, str]:
    shop = (await lifesign.http.post("/v1/provision", json={"project_name": "shop"})).json()
    codes: Codes = lifesign.node.api.state.codes
    order = Order("full", quota_spans=1, tenant_id="default")
    _, full = await lifesign.node.db.write(projects.create, order, lifesign.now())
    async with lifesign.client(full.producer) as once:
        other = json.loads(json.dumps(SPANS).replace("1", "2"))
        assert (await once.post("/v1/traces", json=other)).status_code == 202
    assert (await lifesign.http.post("/v1/traces", json=SPANS)).status_code == 202
    packet = (await lifesign.ask("POST", "/v1/runs/diagnose"))["packet"]
    await lifesign.advance(1)
    return {
        "packet": packet["packet_id"],
        "project": shop["project_id"],
        "agent": shop["agent_key"],
        "full": full.producer,
        "trace": TRACE,
        "recovery": shop["recovery_code"],
        "upgrade": codes.upgrade(shop["project_id"]),
        "nobodys": codes.recovery("nobody-00000000"),
    }


async def _with_vitals(lifesign: Lifesign, watched: str | None) -> dict[str, str]:
    vitals = [
        (await lifesign.http.post("/api/keys", json={"name": "Joe", "email": "joe@x.io"})).json()["api_key"]
        for _ in range(3)
    ]
    with_key = {"X-API-Key": vitals[0]["key"]}
    stream = (await lifesign.http.post("/api/vitals/sessions", headers=with_key)).json()["session"]
    measurement = await lifesign.node.db.write(measurements.keep, _Owner(vitals[0]["id"]), REPORT, lifesign.now())
    return {
        "active": watched or (await lifesign.heartbeat("Active"))["id"],
        "stream": stream["id"],
        "measurement": measurement.id,
        "vitals": vitals[0]["key"],
        "address_with_three": vitals[0]["email"],
    }


@dataclass(frozen=True, slots=True)
class _Owner:
    key_id: int
    project_id: str = "default"


async def _bot_runs(lifesign: Lifesign) -> dict[str, str]:
    """Runs of a bot in all states: one waits, one is held by a worker, one waits for approval."""
    pull = await bot(lifesign, lifesign={"runner": {"kind": "pull"}})
    schedules = [await configured(lifesign, pull["id"], prompt=each) for each in ("busy", "held", "parked")]
    parked, held = [await _claimed_run(lifesign, each) for each in schedules[:0:-1]]
    waits = Outcome("waiting_approval", parked=Parked("http_get", "{}", "{}"))
    await lifesign.node.db.write(ending.finish, parked, 1, waits, lifesign.now())
    waiting = await triggered(lifesign, schedules[0])
    return {
        "pull_bot": pull["uuid"],
        "busy_schedule": schedules[0]["uuid"],
        "bot_run": waiting["uuid"],
        "held_run": held,
        "parked_run": parked,
    }


async def _claimed_run(lifesign: Lifesign, schedule: Json) -> str:
    await triggered(lifesign, schedule)
    run = await claimed(lifesign)
    assert run is not None
    return str(run["run_id"])


async def _notification(lifesign: Lifesign, status: str) -> str:
    return str((await lifesign.ask("GET", f"/v1/notifications?status={status}"))["notifications"][0]["id"])


def _in_order(responses: Json) -> list[int]:
    """Refusals first, as what is done takes away what they are about; 429 last, as it refuses all that follow."""
    return sorted(map(int, responses), key=lambda status: (status == 429, status < 400, status))


_known: list[Json] = []


async def _description(lifesign: Lifesign) -> Json:
    """The server's own `/openapi.json`, the same for every server of one version, so fetched once."""
    if not _known:
        _known.append(await lifesign.ask("GET", "/openapi.json"))
    return _known[0]


async def _provoke(lifesign: Lifesign, operation_id: str, status: int, names: dict[str, str]) -> httpx2.Response:
    """The answer to a request that ought to be answered with `status`."""
    operation = OPERATIONS[operation_id]
    good = operation.good
    if status == 409 and operation_id == "provisionProject":
        at_once = [_send(lifesign.http, replace(good, body={"project_name": "wanted"}), names) for _ in range(10)]
        return next(each for each in await asyncio.gather(*at_once) if each.status_code == 409)
    if status == 429 and good.path.startswith("/bot/"):
        await _use_up_calls(lifesign)
        return await _send(lifesign.http, good, names)
    if status == 429 and operation_id not in {"testChannel", "exportTraces", "tryVitals", "tryVitalsSession"}:
        with _limited(lifesign):
            return await _send(lifesign.http, operation.refused[status], names)
    if status in operation.refused:
        return await _send(lifesign.http, operation.refused[status], names)
    is_systems = good.url.startswith("/api/")
    if status == 202 and operation_id == "triggerHeartbeat":
        return await _send(lifesign.http, replace(good, path=f"{good.path}?async=true"), names)
    match status:
        case 200 | 201 | 202 | 204:
            return await _send(lifesign.http, good, names)
        case 400:
            assert operation.bad is not None, f"{operation_id} documents 400, but the table has no bad request"
            return await _send(lifesign.http, operation.bad, names)
        case 401:
            return await _send(lifesign.client(None), good, names)
        case 403:
            reports = {"checkin", "startRun", "reportProgress", "finishRun"}
            scope = "keys:read" if operation_id in reports else "checkins:write"
            made = await lifesign.ask("POST", "/v1/keys", {"name": "narrow", "scopes": [scope]}, expect=201)
            return await _send(lifesign.client(made["token"]), good, names)
        case 404:
            noun = good.url.split("/")[2]
            return await _send(lifesign.http, replace(good, path=re.sub(r"\{\w+\}", UNKNOWN[noun], good.path)), names)
        case 408:
            with _impatient(lifesign):
                return await _send(lifesign.http, good, names)
        case 413:
            return await _send(lifesign.http, replace(good, body=TOO_LARGE), names)
        case 500:
            with _failing(lifesign, RuntimeError("a fault of ours")):
                return await _send(lifesign.http, good, names)
        case 503 if is_vitals(good.path.partition("?")[0]):
            with _busy(lifesign):
                return await _send(lifesign.http, good, names)
        case 503:
            with _failing(lifesign, WriterBusy() if is_systems else StorageUnavailable("gone")):
                return await _send(lifesign.http, good, names)
        case _:
            raise AssertionError(f"nothing is known to be answered with {status}")


async def _use_up_calls(lifesign: Lifesign) -> None:
    """The plan of the project's bots has no more calls for this minute."""
    bots = {"project_id": "default"}
    assert (await lifesign.http.put("/v1/bot/settings", json=bots | {"plan": "free"})).status_code == 200
    for _ in range(20):
        assert (await lifesign.http.get("/v1/bot/settings", params=bots)).status_code == 200


async def _send(client: httpx2.AsyncClient, request: Request, names: dict[str, str]) -> httpx2.Response:
    url = request.url.format_map(names)
    if request.path.startswith("/api/demo/"):
        # What was asked before counts, too.
        for _ in range(request.times - 1):
            await client.post("/api/demo/session")
    else:
        for _ in range(request.times - 1):
            assert (await client.request(request.method, url)).is_success
    headers: dict[str, str] = {}
    if "authorization" in client.headers and request.is_of_machine:
        headers["Authorization"] = names["basic"]
    if "authorization" in client.headers and request.key:
        headers["Authorization"] = "" if request.key == "none" else f"Bearer {names[request.key]}"
    if "authorization" in client.headers and is_vitals(request.path.partition("?")[0]):
        headers["X-API-Key"] = names["vitals"]
    if request.parts:
        return await client.post(url, files=FILES[request.parts](), data=request.body, headers=headers)
    content = None if request.body is None else json.dumps(_filled(request.body, names))
    if content is not None:
        headers["Content-Type"] = request.kind
    return await client.request(request.method, url, content=content, headers=headers)


def _filled(value: Any, names: dict[str, str]) -> Any:  # Any: JSON
    if isinstance(value, dict):
        return {key: _filled(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, names) for each in value]
    if isinstance(value, str) and value[:1] == "{" and value[1:-1] in names:
        return names[value[1:-1]]
    return value


class _Failing:
    """A database that fails whatever is asked of it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def read(self, *_: object, **__: object) -> None:
        raise self._error

    write = write_batched = read
    window = records = sessions = session = stats = used = lag = read


class _Broken:
    """What a fault of ours is in, whatever is wanted of it."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> None:
        raise self._error


@contextmanager
def _busy(lifesign: Lifesign) -> Iterator[None]:
    """As many analyses and streams wait as may."""
    state = lifesign.node.api.state
    vitals: Vitals = state.vitals
    state.vitals = replace(vitals, workers=Workers(0, waiting=0), sessions=Sessions(0, most_waiting=0))
    try:
        yield
    finally:
        state.vitals = vitals


@contextmanager
def _impatient(lifesign: Lifesign) -> Iterator[None]:
    """No recording arrives in time."""
    state = lifesign.node.api.state
    vitals: Vitals = state.vitals
    state.vitals = replace(vitals, arrivals=Arrivals(Pace(0)))
    try:
        yield
    finally:
        state.vitals = vitals


@contextmanager
def _limited(lifesign: Lifesign) -> Iterator[None]:
    """One call was enough for this hour, of projects as of recoveries."""
    state = lifesign.node.api.state
    context: Context = state.context
    limits = {"mint_limit_total_per_hour": 1, "recover_limit_per_hour": 1}
    state.context = replace(context, settings=context.settings.model_copy(update=limits))
    try:
        yield
    finally:
        state.context = context


@contextmanager
def _failing(lifesign: Lifesign, error: Exception) -> Iterator[None]:
    """Routes are answered by a failing database; the keys are known already."""
    state = lifesign.node.api.state
    context: Context = state.context
    receiver, store, diagnoses, vitals = state.receiver, state.store, state.diagnoses, state.vitals
    courier: Courier = state.courier
    failing = cast("Any", _Failing(error))
    state.context = replace(context, db=failing)
    state.courier = replace(courier, db=failing)
    is_away = isinstance(error, StorageUnavailable)
    state.store = _Failing(StoreUnavailable("gone") if is_away else error)
    state.receiver = Receiver(context.settings, context.clock, failing, store)
    state.diagnoses = Diagnoses(context.settings, context.clock, failing, store, state.check_ins)
    state.vitals = _Broken(error)
    try:
        yield
    finally:
        state.context, state.receiver, state.store, state.diagnoses = context, receiver, store, diagnoses
        state.vitals, state.courier = vitals, courier


# Judging ------------------------------------------------------------------------------------------------------------
def _is_our_time(value: object) -> bool:
    """Stricter than the contract: what the specification promises of every time in an answer."""
    return not isinstance(value, str) or bool(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value))


FORMATS = jsonschema.FormatChecker(formats=())
FORMATS.checks("date-time")(_is_our_time)


def _response(document: Json, described: Json, status: int) -> Json:
    response = described["responses"][str(status)]
    if "$ref" in response:
        return cast("Json", document["components"]["responses"][response["$ref"].rpartition("/")[2]])
    return cast("Json", response)


def _check(answer: httpx2.Response, response: Json, document: Json) -> None:
    """The body, the content type and the headers of an answer are those of `response`."""
    for name, header in response.get("headers", {}).items():
        assert name in answer.headers, f"{answer.status_code} without {name}"
        value = answer.headers[name]
        is_number = header["schema"].get("type") == "integer"
        _validate(int(value) if is_number else value, header["schema"], document)
    content = response.get("content")
    if not content:
        assert answer.content == b""
        return
    media_type = answer.headers["content-type"].partition(";")[0]
    assert media_type in content
    if media_type == "application/json":
        _validate(answer.json(), content["application/json"]["schema"], document)
        if answer.status_code >= 400 and isinstance(answer.json().get("error"), dict):
            told = answer.json()["error"]
            assert told.get("statusCode", told.get("status")) == answer.status_code
        # Of OTLP's errors the code is one of another kind.
        if "code" in answer.json() and "ok" not in answer.json():
            assert answer.json()["code"] == answer.status_code


def _check_examples(body: Json, response: Json, document: Json) -> None:
    """The example of an error has the members of the error that was answered."""
    examples = response["content"]["application/json"]["examples"]
    if not isinstance(body.get("error"), dict):
        (example,) = examples.values()
        assert set(example["value"]) == set(body)
        _validate(example["value"], response["content"]["application/json"]["schema"], document)
        return
    if "status" in body["error"]:
        # The Bots API: one example for each status, whatever the code; a field is named where one is to blame.
        (shown,) = (each["value"] for each in examples.values())
        assert set(shown) == set(body)
        assert set(body["error"]) - {"field"} == set(shown["error"])
        _validate(shown, response["content"]["application/json"]["schema"], document)
        return
    shown = examples[body["error"]["code"]]["value"]
    assert set(shown) == set(body)
    assert set(shown["error"]) == set(body["error"])
    for example in examples.values():
        _validate(example["value"], {"$ref": "#/components/schemas/Error"}, document)


def _validate(value: Any, schema: Json, document: Json) -> None:  # Any: JSON
    registry = referencing.Registry[Any]().with_resource("urn:document", DRAFT202012.create_resource(document))
    rooted = json.loads(json.dumps(schema).replace('"#/', '"urn:document#/'))
    jsonschema.Draft202012Validator(rooted, registry=registry, format_checker=FORMATS).validate(value)
