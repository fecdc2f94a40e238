"""Spans come in over `/v1/traces`. Spec "Telemetry", sections 3 and 11."""

import gzip
import json
import zlib

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from lifesign.telemetry.otlp import decode_json
from tests.harness import ADMIN_KEY, Lifesign, MakeLifesign
from tests.projects.visitors import visitor
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import JSON, PROTOBUF, json_of, protobuf_of, receiver_of, sender, spans, store_of


async def test_a_good_span_is_taken_and_is_in_this_project_only(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        answer = await ours.post(json_of(USUAL))

        assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")
        assert answer.json() == {"ok": True, "accepted": 1, "rejected": 0}
        [stored] = await ours.stored()
        assert stored.record.body.name == "chat"
        assert stored.record.received_at == lifesign.now()
        assert await theirs.stored() == []


async def test_two_projects_may_have_spans_of_the_same_ids(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        await ours.told(USUAL | {"name": "ours"})
        await theirs.told(USUAL | {"name": "theirs"})

        assert [each.record.body.name for each in await ours.stored()] == ["ours"]
        assert [each.record.body.name for each in await theirs.stored()] == ["theirs"]


async def test_a_project_that_is_named_in_a_request_counts_for_nothing(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, sender(lifesign) as theirs:
        named = {"key": "project_id", "value": {"stringValue": theirs.project_id}}
        body = json_of(USUAL | {"attributes": [named]})
        answer = await ours.post(body, X_Lifesign_Project=theirs.project_id, X_Project_Id=theirs.project_id)

        assert answer.status_code == 202
        assert len(await ours.stored()) == 1
        assert await theirs.stored() == []


async def test_only_a_producer_key_sends(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        told = [
            await ours.post(json_of(USUAL), key=key)
            for key in (None, "nonsense", ours.agent_key, ours.producer_key, ADMIN_KEY)
        ]

        assert [(each.status_code, each.json().get("error")) for each in told] == [
            (401, "missing_key"),
            (401, "invalid_key"),
            (401, "wrong_key_kind"),
            (202, None),
            (202, None),
        ]
        assert told[2].json() == {
            "ok": False,
            "error": "wrong_key_kind",
            "message": "This route needs a producer key",
            "code": 16,
        }
        assert {each.headers["www-authenticate"] for each in told[:3]} == {'Bearer realm="lifesign"'}
        assert len(await ours.stored()) == 1


async def test_revoked_and_expired_keys_are_refused_at_the_very_next_request(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours, visitor(lifesign) as someone:
        sandbox = await someone.sign_up()
        assert (await ours.post(json_of(USUAL), key=sandbox["producer_key"])).status_code == 202
        assert (await ours.post(json_of(USUAL))).status_code == 202
        code = lifesign.node.api.state.codes.recovery(ours.project_id)
        got = await someone.told("POST", "/v1/recover", {"project_id": ours.project_id, "recovery_code": code})

        revoked = await ours.post(json_of(USUAL))
        async with lifesign.client(ours.agent_key) as client:
            unread = await client.get("/v1/telemetry")
        async with lifesign.client(got["agent_key"]) as client:
            read = (await client.get("/v1/telemetry")).json()
            quota = (await client.get("/v1/dashboard")).json()["quota"]
        again = await ours.post(json_of(USUAL), key=got["producer_key"])
        await lifesign.advance(14 * 24 * 3600)
        expired = await ours.post(json_of(USUAL), key=sandbox["producer_key"])

    assert (revoked.status_code, revoked.json()["error"]) == (401, "revoked_key")
    assert (unread.status_code, unread.json()["error"]) == (401, "revoked_key")
    # What was there is the project's, whatever its keys.
    assert [each["name"] for each in read["records"]] == ["chat"]
    assert (quota["used"], again.json()) == (1, {"ok": True, "accepted": 1, "rejected": 0})
    assert (expired.status_code, expired.json()["error"]) == (401, "expired_key")


@pytest.mark.parametrize(
    "body",
    [b"{}", b'{"resourceSpans":{}}', b"[]", b"{", b"", b"null", b"\xff", b"[" * 100_000, b'{"resourceSpans":null}'],
)
async def test_what_is_no_request_of_otlp_is_refused(lifesign: Lifesign, body: bytes) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(body)

    assert (answer.status_code, answer.headers["content-type"]) == (400, "application/json")
    assert (answer.json()["error"], answer.json()["code"]) == ("invalid_otlp", 3)
    assert set(answer.json()) == {"ok", "error", "message", "code"}


async def test_another_signal_is_named(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(b'{"resourceLogs":[]}')

    assert answer.json()["message"] == "The body holds logs; only traces are accepted here"


async def test_no_spans_are_a_success(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        told = await ours.post(b'{"resourceSpans":[]}')
        empty = await ours.post(b"", PROTOBUF)

    assert (told.status_code, told.json()) == (202, {"ok": True, "accepted": 0, "rejected": 0})
    assert (empty.status_code, empty.content) == (200, b"")


async def test_the_same_again_changes_nothing_and_counts_as_accepted(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        batch = spans(3)
        await ours.told(*batch)
        before = [(each.record.record_id, each.record.received_at) for each in await ours.stored()]
        await lifesign.advance(1)

        again = await ours.told(*batch, *spans(1, first=9))

        after = [(each.record.record_id, each.record.received_at) for each in await ours.stored()]
        assert again == {"ok": True, "accepted": 4, "rejected": 0}
        assert set(before) < set(after)
        assert len(after) == 4
        assert await ours.used() == 4


async def test_a_span_that_comes_twice_in_one_request_is_stored_once(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        assert await ours.told(USUAL, USUAL) == {"ok": True, "accepted": 2, "rejected": 0}

        assert len(await ours.stored()) == 1
        assert await ours.used() == 1


async def test_a_bad_span_is_left_out_and_named(lifesign: Lifesign) -> None:
    without_trace = {name: value for name, value in USUAL.items() if name != "traceId"} | {"name": "lost"}
    async with sender(lifesign) as ours:
        told = await ours.told(*spans(2), without_trace)

        assert told == {
            "ok": True,
            "accepted": 2,
            "rejected": 1,
            "partialSuccess": {
                "rejectedSpans": "1",
                "errorMessage": "1 span rejected: invalid traceId (1); first: 'lost'",
            },
        }
        assert await ours.span_ids() == [1, 2]


async def test_protobuf_is_answered_in_protobuf(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        good = await ours.post(protobuf_of(*spans(2)), PROTOBUF)
        part = await ours.post(protobuf_of(*spans(1, first=3), {"name": "lost"}), "application/protobuf; a=b")
        garbage = await ours.post(b"garbage", PROTOBUF)

        assert await ours.span_ids() == [1, 2, 3]
    assert (good.status_code, good.content) == (200, b"")
    assert part.status_code == 200
    told = ExportTraceServiceResponse.FromString(part.content).partial_success
    assert (told.rejected_spans, told.error_message) == (1, "1 span rejected: invalid traceId (1); first: 'lost'")
    assert garbage.status_code == 400
    assert Status.FromString(garbage.content).code == 3
    assert {each.headers["content-type"] for each in (good, part, garbage)} == {"application/x-protobuf"}


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("gzip", gzip.compress),
        ("GZIP", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", lambda body: zlib.compress(body)[2:-4]),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_bodies_may_be_compressed(lifesign: Lifesign, name: str, compress: type[bytes]) -> None:
    async with sender(lifesign) as ours:
        told = await ours.post(compress(json_of(*spans(1))), Content_Encoding=name)
        encoded = await ours.post(compress(protobuf_of(*spans(1, first=2))), PROTOBUF, Content_Encoding=name)

        assert (told.status_code, encoded.status_code) == (202, 200)
        assert await ours.span_ids() == [1, 2]


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "gzip,identity", "x"])
async def test_other_encodings_are_refused(lifesign: Lifesign, encoding: str) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(json_of(USUAL), Content_Encoding=encoding)

    assert (answer.status_code, answer.json()["error"], answer.json()["code"]) == (415, "unsupported_encoding", 3)


async def test_an_encoding_that_is_told_twice_is_refused(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        headers = [
            ("Authorization", f"Bearer {ours.producer_key}"),
            ("Content-Type", JSON),
            ("Content-Encoding", "gzip"),
            ("Content-Encoding", "gzip"),
        ]
        answer = await ours.http.post("/v1/traces", content=gzip.compress(json_of(USUAL)), headers=headers)

    assert answer.json()["error"] == "unsupported_encoding"


@pytest.mark.parametrize("kind", [None, "text/plain", "application/jsonx", "application/x-www-form-urlencoded", ""])
async def test_other_types_are_refused_with_the_two_that_are_taken(lifesign: Lifesign, kind: str | None) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(json_of(USUAL), kind)

    assert (answer.status_code, answer.headers["content-type"]) == (415, "application/json")
    assert answer.json() == {
        "ok": False,
        "error": "unsupported_media_type",
        "message": "Content-Type must be application/json or application/x-protobuf",
        "code": 3,
    }


@pytest.mark.parametrize("kind", ["Application/JSON", "application/json; charset=utf-8", " application/json ;x"])
async def test_parameters_and_case_of_a_type_do_not_matter(lifesign: Lifesign, kind: str) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(json_of(USUAL), kind)

    assert (answer.status_code, answer.headers["content-type"]) == (202, "application/json")


async def test_strict_peers_may_be_answered_200(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(otlp_json_success_status=200) as lifesign, sender(lifesign) as ours:
        assert (await ours.post(json_of(USUAL))).status_code == 200


@pytest.mark.parametrize("start", [1_767_614_400_123_456_789, "1767614400123456789"])
async def test_times_are_exact_to_the_nanosecond_as_text_and_as_numbers(lifesign: Lifesign, start: object) -> None:
    end = {"endTimeUnixNano": 1_767_614_400_123_456_790}
    async with sender(lifesign) as ours:
        await ours.told(USUAL | {"startTimeUnixNano": start} | end)

        [stored] = await ours.stored()
        assert (stored.record.start_ns, stored.record.end_ns) == (1_767_614_400_123_456_789, 1_767_614_400_123_456_790)


async def test_an_end_before_the_start_is_kept_as_a_duration_of_nothing(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await ours.told(USUAL | {"startTimeUnixNano": "2000", "endTimeUnixNano": "1000"})

        [stored] = await ours.stored()
        assert stored.record.duration_ns == 0
        assert stored.record.flags & 8


# Quota --------------------------------------------------------------------------------------------------------------
async def test_a_quota_is_filled_in_the_order_of_the_request_and_then_refuses(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=10) as lifesign, sender(lifesign) as ours, sender(lifesign) as theirs:
        first = await ours.told(*spans(15))
        full = await ours.post(json_of(*spans(1, first=20)))
        old_only = await ours.told(*spans(10))
        old_and_new = await ours.post(json_of(*spans(11)))

        assert (first["accepted"], first["rejected"]) == (10, 5)
        assert first["partialSuccess"]["errorMessage"] == "5 spans rejected: over quota (5); first: 'chat'"
        assert await ours.span_ids() == [*range(1, 11)]
        assert (full.status_code, full.json()["error"], full.json()["code"]) == (429, "quota_exceeded", 8)
        assert full.headers["retry-after"] == "3600"
        assert old_only == {"ok": True, "accepted": 10, "rejected": 0}
        assert old_and_new.status_code == 429
        assert (await theirs.told(*spans(3)))["accepted"] == 3
        async with lifesign.client(ours.agent_key) as client:
            for path in ("/v1/telemetry", "/v1/sessions", f"/v1/sessions/{USUAL['traceId']}", "/v1/reports/latest.md"):
                assert (await client.get(path)).status_code == 200, path
            diagnosed = await client.post("/v1/runs/diagnose")
            quota = (await client.get("/v1/dashboard")).json()["quota"]
        assert (diagnosed.status_code, diagnosed.json()["packet"]["telemetry_read"]) == (200, 10)
        assert (quota["limit"], quota["used"], quota["remaining"]) == (10, 10, 0)


async def test_bad_spans_alone_are_no_matter_of_quota(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=1) as lifesign, sender(lifesign) as ours:
        await ours.told(USUAL)

        told = await ours.told({"name": "lost"})
        mixed = await ours.post(protobuf_of(*spans(1, first=7), {"name": "lost"}), PROTOBUF)

    assert (told["accepted"], told["rejected"]) == (0, 1)
    assert (mixed.status_code, Status.FromString(mixed.content).code) == (429, 8)


async def test_a_new_month_begins_with_a_new_quota(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(at="2026-01-31T23:59:30.500Z", quota_spans=1) as lifesign,
        sender(lifesign) as ours,
    ):
        await ours.told(*spans(1))
        full = await ours.post(json_of(*spans(1, first=2)))
        await lifesign.advance(30)

        assert full.headers["retry-after"] == "30"
        assert (await ours.told(*spans(1, first=2)))["accepted"] == 1


async def test_the_default_project_has_no_quota(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=1) as lifesign, sender(lifesign) as ours:
        answer = await ours.post(json_of(*spans(3)), key=ADMIN_KEY)

    assert answer.json()["accepted"] == 3


async def test_spans_of_the_server_itself_take_the_same_way(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=2) as lifesign, sender(lifesign) as ours:
        made = decode_json(json_of(*spans(3)), arrival_ns=1).spans

        appended = await receiver_of(lifesign).take(ours.project_id, made)

        assert (appended.new, appended.over_quota) == (2, 1)
        assert await ours.span_ids() == [1, 2]
        assert (await receiver_of(lifesign).take(ours.project_id, made[2:])).over_quota == 1


async def test_a_fault_of_the_server_is_told_to_exporters_in_their_words(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: object, **__: object) -> None:
        raise RuntimeError("inner words")

    async with sender(lifesign) as ours:
        monkeypatch.setattr(store_of(lifesign), "append", fails)
        told = await ours.post(json_of(USUAL), X_Request_Id="mine")
        encoded = await ours.post(protobuf_of(USUAL), PROTOBUF)

    words = "Internal server error"
    assert (told.status_code, encoded.status_code) == (500, 500)
    assert told.json() == {
        "ok": False,
        "error": "internal_error",
        "message": words,
        "request_id": "mine",
        "code": 13,
    }
    assert encoded.headers["content-type"] == PROTOBUF
    assert Status.FromString(encoded.content) == Status(code=13, message=words)


# What surrounds it --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_only_post_is_answered(lifesign: Lifesign, method: str) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.http.request(method, "/v1/traces")

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method != "HEAD":
        assert answer.json()["error"] == "method_not_allowed"


@pytest.mark.parametrize("path", ["/v1/logs", "/v1/metrics"])
async def test_other_signals_are_told_so_however_they_come(lifesign: Lifesign, path: str) -> None:
    async with sender(lifesign) as ours:
        told = await ours.http.post(path, content=gzip.compress(b"x" * 100_000), headers={"Content-Encoding": "gzip"})
        encoded = await ours.http.post(path, content=b"\n\x00" * 100_000, headers={"Content-Type": PROTOBUF})

    words = "Only traces are accepted here; set OTEL_LOGS_EXPORTER=none / OTEL_METRICS_EXPORTER=none"
    assert (told.status_code, told.json()["message"], told.json()["code"]) == (404, words, 12)
    assert (encoded.status_code, encoded.headers["content-type"]) == (404, PROTOBUF)
    assert Status.FromString(encoded.content).message == words


async def test_pages_of_the_origins_that_are_set_may_send(start_lifesign: MakeLifesign) -> None:
    allowed = "https://app.example.org, https://other.example.org"
    async with start_lifesign(otlp_cors_origins=allowed) as lifesign, sender(lifesign) as ours:
        asked = await ours.http.options("/v1/traces", headers={"Origin": "https://app.example.org"})
        sent = await ours.post(json_of(USUAL), Origin="https://other.example.org")
        refused = await ours.post(b"{", Origin="https://app.example.org")
        unknown = await ours.post(json_of(USUAL), key=None, Origin="https://app.example.org")
        foreign = await ours.post(json_of(USUAL), Origin="https://evil.example.org")
        shown = await ours.http.get("/v1/traces")

    assert (asked.status_code, asked.content) == (204, b"")
    assert {name: asked.headers[name] for name in asked.headers if name.startswith("access-control-")} == {
        "access-control-allow-origin": "https://app.example.org",
        "access-control-allow-methods": "POST",
        "access-control-allow-headers": "authorization, content-type, content-encoding",
        "access-control-max-age": "7200",
    }
    assert sent.headers["access-control-allow-origin"] == "https://other.example.org"
    assert (refused.status_code, refused.headers["access-control-allow-origin"]) == (400, "https://app.example.org")
    assert (unknown.status_code, unknown.headers["access-control-allow-origin"]) == (401, "https://app.example.org")
    assert "access-control-allow-origin" not in foreign.headers
    assert {each.headers["vary"] for each in (asked, sent, refused, foreign)} == {"Origin"}
    assert (shown.status_code, shown.headers["allow"]) == (405, "POST")


async def test_any_page_may_send_where_that_is_set(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(otlp_cors_origins="*") as lifesign, sender(lifesign) as ours:
        answer = await ours.post(json_of(USUAL), Origin="https://any.example.org")

    assert answer.headers["access-control-allow-origin"] == "https://any.example.org"


async def test_where_no_origin_is_set_nothing_is_said_of_origins(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        answer = await ours.post(json_of(USUAL), Origin="https://app.example.org")

    assert "vary" not in answer.headers
    assert "access-control-allow-origin" not in answer.headers


async def test_what_became_of_spans_is_counted(start_lifesign: MakeLifesign) -> None:
    async def counted(lifesign: Lifesign) -> dict[str, float]:
        lines = (await lifesign.http.get("/metrics")).text.splitlines()
        return {
            name: float(value)
            for line in lines
            if line.startswith("lifesign_otlp") and "created" not in line and "bucket" not in line
            for name, value in [line.rsplit(" ", 1)]
        }

    async with start_lifesign(quota_spans=3) as lifesign, sender(lifesign) as ours:
        await ours.told(USUAL)
        before = await counted(lifesign)
        await ours.told(USUAL, *spans(3), {"name": "lost"})
        after = await counted(lifesign)

    grown = {name: after[name] - before.get(name, 0) for name in after}
    assert {name: grown[f'lifesign_otlp_spans_total{{result="{name}"}}'] for name in ("new", "duplicate")} == {
        "new": 2,
        "duplicate": 1,
    }
    assert grown['lifesign_otlp_spans_total{result="over_quota"}'] == 1
    assert grown['lifesign_otlp_spans_total{result="invalid"}'] == 1
    assert grown["lifesign_otlp_commit_seconds_count"] == 1
    assert after["lifesign_otlp_inflight_bytes"] == 0


async def test_the_message_about_many_bad_spans_stays_short(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        told = await ours.told(*({"name": "n" * 5000} for _ in range(300)))

    assert told["rejected"] == 300
    assert len(json.dumps(told)) < 1000
