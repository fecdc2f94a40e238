"""Answers of diagnosis against the schemas that describe them: nothing is missing, and nothing is told of besides."""

from functools import cache
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it comes without types
from pydantic import BaseModel

from lifesign.diagnosis import shown
from lifesign.diagnosis.manifest import manifest_of
from tests.harness import Json

ANSWERS: dict[str, type[BaseModel]] = {
    "/v1/runs/diagnose": shown.Diagnosed,
    "/v1/runs/verify": shown.Verification,
    "/v1/runs": shown.PacketList,
    "/v1/issues": shown.Ledger,
}


def assert_fits(model: type[BaseModel], body: Json) -> None:
    _validator(model).validate(body)


def assert_packet_fits(packet: Json) -> None:
    """A packet, and what `lifesign diagnose --out` would make of it."""
    assert_fits(shown.DiagnosisPacket, packet)
    manifest = manifest_of(packet, run_id="run_0", created_at=packet["created_at"])
    assert_fits(shown.ImprovementPacket, manifest)
    recurring = [each["fingerprint"] for each in packet["issues"] if each["count"] >= 2]
    assert [each["fingerprint"] for each in manifest["eval_candidates"]] == recurring
    assert [(each["fingerprint"], each["step"]) for each in manifest["patch_plan"]] == [
        (fingerprint, step) for step, fingerprint in enumerate(recurring, 1)
    ]


@cache
def _validator(model: type[BaseModel]) -> Any:  # Any: it comes without types
    schema = model.model_json_schema()
    _close(schema)
    return jsonschema.Draft202012Validator(schema, format_checker=jsonschema.FormatChecker())


def _close(schema: Any) -> None:  # Any: a JSON Schema, or a part of one
    """Let objects have no other members than those that are described."""
    if isinstance(schema, list):
        for each in schema:
            _close(each)
    if isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for each in schema.values():
            _close(each)
