"""Whatever is sent is taken or refused, and nothing of it is a fault of the server. Spec "Telemetry", section 3."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lifesign.telemetry.store import Stored
from tests.harness import Lifesign
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import JSON, PROTOBUF, Sender, json_of, protobuf_of, sender, spans
from tests.telemetry.test_otlp_anything import FIELDS
from tests.telemetry.test_otlp_anything import JSON as ANY_JSON

MANY = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
FINE = {200, 202, 400, 413, 415}
GOOD: list[Callable[[], bytes]] = [
    lambda: json_of(*spans(2)),
    lambda: protobuf_of(*spans(2)),
    lambda: gzip.compress(json_of(*spans(2)), mtime=0),
]


async def assert_answered(ours: Sender, body: bytes, kind: str, encoding: str) -> None:
    answer = await ours.post(body, kind, Content_Encoding=encoding)

    assert answer.status_code in FINE, answer.text
    assert len(answer.content) < 65_536
    if answer.status_code >= 400 and kind == PROTOBUF:
        assert Status.FromString(answer.content).code in {3, 8}
    elif answer.status_code >= 400:
        assert set(answer.json()) == {"ok", "error", "message", "code"}


@pytest.fixture
async def ours(lifesign: Lifesign) -> Any:  # Any: an async generator, which pytest makes a Sender of
    async with sender(lifesign) as made:
        yield made


@MANY
@given(
    body=st.binary(max_size=300),
    kind=st.sampled_from([JSON, PROTOBUF]),
    encoding=st.sampled_from(["", "gzip", "deflate", "br"]),
)
async def test_any_bytes_are_answered(ours: Sender, body: bytes, kind: str, encoding: str) -> None:
    await assert_answered(ours, body, kind, encoding)


@MANY
@given(data=st.data(), good=st.sampled_from(range(3)))
async def test_good_bodies_with_changed_bytes_are_answered(ours: Sender, data: st.DataObject, good: int) -> None:
    body = bytearray(GOOD[good]())
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    await assert_answered(ours, bytes(body), PROTOBUF if good == 1 else JSON, "gzip" if good == 2 else "")


@MANY
@given(fields=st.dictionaries(FIELDS, ANY_JSON), resource=st.none() | ANY_JSON)
async def test_any_json_in_any_field_is_stored_or_rejected(ours: Sender, fields: Any, resource: Any) -> None:
    group = {"resource": resource, "scopeSpans": [{"spans": [USUAL | fields]}]}
    answer = await ours.post(json.dumps({"resourceSpans": [group]}).encode())

    assert answer.status_code == 202, answer.text
    assert answer.json()["accepted"] + answer.json()["rejected"] == 1


@MANY
@given(text=st.text(max_size=50))
async def test_any_text_is_read_again_as_it_came(ours: Sender, text: str) -> None:
    span_id = f"{abs(hash(text)) % 2**63 + 1:016x}"
    attribute = {"key": "said", "value": {"stringValue": text}}
    body = json_of(USUAL | {"spanId": span_id, "name": text, "attributes": [attribute]})
    assert (await ours.post(body)).status_code == 202

    [stored] = [each for each in await ours.stored() if each.record.span_id == span_id]
    assert _said(stored) == text.replace("\x00", "\ufffd")


def _said(stored: Stored) -> object:
    return stored.record.body.attributes["said"]
