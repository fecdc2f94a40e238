"""Loaded by schemathesis: which requests the server may refuse although its schema allows them, and for which words.

It stands in for the built-in check `positive_data_acceptance`, which knows statuses only and so would have to be told
that 400 is fine for every operation named here; and for `unsupported_method`, which knows one API of several only.
"""

import json
import re
from typing import Any

import schemathesis
from schemathesis import Case, CheckContext, HookContext, Response
from schemathesis.specs.openapi.checks import unsupported_method

# Operation, field and words of a refusal that depends on what is stored, on the time, or on several fields at once.
_BOTS = (
    r"(create|read|list|update|reset|delete)Bots?|(configure|enable|disable|trigger|preview)Heartbeat"
    r"|(listBot|getBot|deleteBot)Heartbeats?|getHeartbeat(Logs|Stats)|(list|create)Subscribers?"
    r"|(read|change)BotSettings|(get|cancel|approve|claim|beat|finish)Bot(Run|Transcript)|(stop|resume)Bots"
)
EXPLAINED = [
    # Objects of the project, by id: only the database knows.
    (r"createHeartbeat|updateHeartbeat", r"policy", r"unknown policy"),
    (r"createHeartbeat|updateHeartbeat", r"channels\[\d+\]", r"unknown channel"),
    (r"createPolicy|updatePolicy", r"steps\[\d+\]\.channels\[\d+\]", r"unknown channel"),
    (r"createHeartbeat|updateHeartbeat", r"dependsOn\[\d+\]", r"unknown heartbeat|.+ (itself|already)"),
    (r"createMaintenance|updateMaintenance", r"heartbeats\[\d+\]", r"unknown heartbeat"),
    (r"updateSettings", r"fallbackChannel", r"unknown channel"),
    (r"updateSettings", r"diagnosisAlert\.policy", r"unknown policy"),
    # Names that are taken already.
    (r"createHeartbeat|updateHeartbeat", r"slug", r"is taken by another heartbeat"),
    (r"createHeartbeat", r"pingId", r"is taken by another heartbeat"),
    # Which timing field goes with which mode, given or stored.
    (r"createHeartbeat|updateHeartbeat", r"interval", r"is (for recurring and oneshot only|required for \w+)"),
    (r"createHeartbeat|updateHeartbeat", r"schedule", r"is (for scheduled only|required for scheduled)"),
    (r"createHeartbeat|updateHeartbeat", r"tolerance", r"is for recurring and scheduled only"),
    # Fields that belong together, given or stored, and others that do not.
    (r"createHeartbeat|updateHeartbeat", r"tolerance", r"failures must not be more than window"),
    (r"createMaintenance|updateMaintenance", r"\w+", r"(is|and endsAt, .+ are) required|cannot stand beside .+"),
    (r"createMaintenance|updateMaintenance", r"endsAt", r"must be (after|at most 366 days after) startsAt"),
    (r"createMaintenance|updateMaintenance", r"heartbeats", r"or one of .+ is required"),
    (r"snoozeHeartbeat", r"seconds", r"or until is required, not both"),
    # A grammar, an almanac, and sizes counted in bytes of JSON.
    (r"createHeartbeat|updateHeartbeat|createMaintenance|updateMaintenance", r"schedule", r".+"),
    (r"createHeartbeat|updateHeartbeat|createMaintenance|updateMaintenance", r"timezone", r"is not an IANA time zone"),
    (r"createHeartbeat|updateHeartbeat", r"tags", r"must be at most 500 characters together, joined by blanks"),
    (
        r"createHeartbeat|updateHeartbeat|checkin|startRun|reportProgress|finishRun",
        r"metadata",
        r"must (be at most 16\d* .+|not contain U\+0000)",
    ),
    # A channel's settings go with its type, given or stored; an address may be forbidden.
    (r"createChannel|updateChannel|compareChannel", r"config(\..*)?", r".+"),
    # The clock.
    (r"createApiKey", r"expiresAt", r"must lie in the future"),
    (r"createApiKey", r"expiresAt", r"is not a date that exists"),
    (r"importHeartbeatEvents", r"events\[\d+\]\.createdAt", r"must not lie in the future|is not a date .+"),
    (r"snoozeHeartbeat", r"until", r"must be in the future, at most 30 days from now|is not a date .+"),
    (r"createMaintenance|updateMaintenance", r"(starts|ends)At", r"is not a date .+"),
    # The same of systems, whose envelope has a word for each.
    (r"createSystem|updateSystem", r"policy", r"not_found"),
    (r"list(Systems|Inventories|InventoryChanges)", r"cursor|since", r"invalid_format"),
    # A letter or digit of any script, a length without the blanks around it. Here the field is the word for programs.
    (r"provisionProject|signUp", r"project_name_(required|invalid)|operator_invalid", r".+"),
    (r"upgradeProject", r"code_required", r".+"),
    (r"recoverProject", r"recovery_fields_required", r".+"),
    (r"readTelemetry|readSession|listSessions|listPackets|listIssues", r"invalid_cursor", r".+"),
    # The clock; and fields that exclude each other.
    (r"diagnose|verify", r"invalid_parameter", r"until (must not be in the future|is not a date .+)"),
    (r"verify", r"invalid_parameter", r"packet_id or fingerprints must be given, and not both|environment must .+"),
    (r"readTelemetry", r"invalid_parameter", r"ids must be .+"),
    (r"\w+", r"invalid_json", r"The body is not valid JSON: .*surrogate.*"),
    # Blanks around a text, what makes an address of a domain, and JSON that cannot be told.
    (r"requestApiKey", r"", r"(Name|Valid email) .+|Request body must be a JSON object"),
    # Of bots: ids that were left out as "null" or "undefined", fields that go together, a grammar, a zone, a time of
    # the day, objects whose members depend on each other. Each is told by its field, and tried in tests/bots.
    (_BOTS, r".+", r".+"),
    # Samples and their times, frames and theirs, JSON within a field: what belongs together.
    (
        r"analyzeVitals|tryVitals",
        r"",
        r"(t_ms|rgb|fps|face|box|clipped|calibration) .+|Too few samples|The demo takes .+",
    ),
    (r"measurePulse|analyzeVitals|tryVitals", r"", r"(frame|video) is required|multipart body: .+|Invalid watch"),
    (r"measurePulse|tryVitals", r"", r"timestamps_ms must be .+"),
    (r"analyzeVitals|tryVitals|createVitalsSession", r"", r"Request body must be a JSON object|Invalid watch"),
    # Cursors are made by the server.
    (r"list\w+", r"cursor", r"is not a cursor of this list"),
    (r"list\w+|getDashboardRecentErrors", r"", r"cursor is not a cursor of this list"),
    # JSON that is longer as text than as a string of the schema's: lone surrogates cannot be told by a schema.
    (r"\w+", r"body", r"is not valid JSON: .*surrogate.*"),
]
STATES = {
    "retryNotification",
    "ackHeartbeat",
    "pauseHeartbeat",
    "resumeHeartbeat",
    "snoozeHeartbeat",
    "unsnoozeHeartbeat",
    "startRun",
    "reportProgress",
    "finishRun",
}
# 405: some operations say that beside what they are about stand names of what is done.
FINE = {401, 403, 404, 405, 409, 429}
# Of images and videos, which no schema tells from other bytes, and in which there may be no pulse.
UNREADABLE = {415, 422}
READERS = {"measurePulse", "analyzeVitals", "tryVitals"}


@schemathesis.hook
def before_call(_context: HookContext, case: "Case[Any]", _kwargs: dict[str, Any]) -> None:
    """Cut waits that are allowed to a second: the server keeps to them, and half a minute teaches nothing more."""
    if case.operation.path == "/v1/bot/runs/claim" and isinstance(case.body, dict):
        wanted = str(case.body.get("wait_seconds"))
        if wanted.isascii() and wanted.isdigit() and 1 < int(wanted) <= 30:
            case.body = case.body | {"wait_seconds": 1}


# Of the Vitals API, in which a path that has no such method is not there.
NO_405 = re.compile(r"/api/(keys|dashboard|rppg|demo|vitals)(/.*)?")


@schemathesis.check
def methods_that_an_operation_does_not_have_are_refused(
    context: CheckContext, response: Response, case: "Case[Any]"
) -> None:
    if NO_405.fullmatch(case.operation.path) is None:
        unsupported_method(context, response, case)


@schemathesis.check
def schema_valid_requests_are_refused_for_a_known_reason_only(
    _context: CheckContext, response: Response, case: "Case[Any]"
) -> None:
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    if response.status_code < 300 or response.status_code in FINE:
        return
    operation_id = case.operation.definition.raw["operationId"]
    if response.status_code in UNREADABLE and operation_id in READERS:
        return
    assert response.status_code == 400, f"{operation_id} answered {response.status_code} to a request its schema allows"
    body = json.loads(response.content)
    error = body.get("error")
    if isinstance(error, dict) and error["code"] == "INVALID_STATE":
        assert operation_id in STATES, f"{operation_id} refuses states, but does not say so"
        return
    unexplained = [fault for fault in _faults(body) if not _is_explained(operation_id, fault)]
    assert not unexplained, f"{operation_id} refuses what its schema allows: {unexplained}"


def _faults(body: dict[str, Any]) -> list[dict[str, str]]:  # Any: JSON
    if body.get("success") is False:
        return [{"field": "", "message": body["message"]}]
    if isinstance(body.get("error"), str):
        return [{"field": body["error"], "message": body["message"]}]
    if isinstance(body.get("error"), dict) and "status" in body["error"]:
        return [{"field": body["error"].get("field", ""), "message": body["message"]}]
    if "error" in body:
        return list(body["error"]["details"])
    return [{"field": each["key"], "message": each["message"]} for each in body["data"]["errors"]]


def _is_explained(operation_id: str, fault: dict[str, str]) -> bool:
    return any(
        re.fullmatch(operations, operation_id)
        and re.fullmatch(field, fault["field"], re.DOTALL)
        and re.fullmatch(words, fault["message"], re.DOTALL)
        for operations, field, words in EXPLAINED
    )
