"""Lines of OTLP in requests of a bounded size: no span is lost, repeated or moved to another resource or scope."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.cli import otlp_lines
from lifesign.cli.otlp_lines import NotOtlp, OtherSignal, groups_in, requests_of
from lifesign.telemetry.otlp import decode_json
from tests.telemetry.requests import ARRIVAL

Json = dict[str, Any]


def span(number: int, size: int = 0) -> Json:
    return {"traceId": "5b8efff798038103d269b633813fc60c", "spanId": f"{number:016x}", "name": "x" * size}


def group(*parts: list[Json], host: str = "h") -> Json:
    """A resource with the spans of several scopes."""
    return {
        "resource": {"attributes": [{"key": "host.name", "value": {"stringValue": host}}]},
        "scopeSpans": [{"scope": {"name": f"scope-{place}"}, "spans": spans} for place, spans in enumerate(parts)],
    }


def placed(bodies: list[bytes]) -> list[tuple[str, str, str]]:
    """Host, scope and id of every span, as the server reads them."""
    return [
        (each.resource.attributes["host.name"], each.scope.name, each.span_id)
        for body in bodies
        for each in decode_json(body, arrival_ns=ARRIVAL).spans
    ]


# The sizes of the scopes of the resources of a file.
_FILES = st.lists(st.lists(st.integers(0, 9), max_size=4), max_size=6)


@given(_FILES, st.integers(1, 7), st.integers(200, 2000))
def test_every_span_arrives_once_where_it_was_in_requests_of_a_bounded_size(
    sizes: list[list[int]], most_spans: int, most_bytes: int
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(otlp_lines, "MAX_SPANS", most_spans)
        patched.setattr(otlp_lines, "MAX_BYTES", most_bytes)
        numbers = iter(range(1, 10_000))
        file = [
            group(*([span(next(numbers)) for _ in range(size)] for size in scopes), host=f"host-{place}")
            for place, scopes in enumerate(sizes)
        ]

        requests = list(requests_of(enumerate(file, 1)))

    expected = placed([json.dumps({"resourceSpans": file}).encode()])
    assert placed([request.body for request in requests]) == expected
    assert sum(request.spans for request in requests) == len(expected)
    assert all(request.spans <= most_spans for request in requests)
    assert all(request.part_bytes <= most_bytes or request.spans <= 1 for request in requests)


def test_lines_travel_together_up_to_a_thousand_spans() -> None:
    lines = [(number, group([span(number)])) for number in range(1, 2502)]

    requests = list(requests_of(lines))

    assert [(each.first_line, each.last_line, each.spans) for each in requests] == [
        (1, 1000, 1000),
        (1001, 2000, 1000),
        (2001, 2501, 501),
    ]


def test_a_line_of_many_megabytes_is_cut_between_spans() -> None:
    line = group([span(number, 1_000_000) for number in range(1, 11)])

    requests = list(requests_of([(1, line)]))

    assert len(placed([request.body for request in requests])) == 10
    assert all(len(request.body) <= 4 * 2**20 + 100 for request in requests)
    assert len(requests) == 4


def test_both_spellings_are_read() -> None:
    old = {"resource_spans": [{"resource": group()["resource"], "scope_spans": [{"spans": [span(1), span(2)]}]}]}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(otlp_lines, "MAX_SPANS", 1)
        requests = list(requests_of((1, each) for each in groups_in(json.dumps(old).encode())))

    assert [each[2] for each in placed([request.body for request in requests])] == [f"{1:016x}", f"{2:016x}"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not a JSON object"),
        (b"{}", "has no list resourceSpans of objects"),
        (b'{"resourceSpans":{}}', "has no list resourceSpans of objects"),
        (b'{"resourceSpans":[7]}', "has no list resourceSpans of objects"),
    ],
)
def test_a_line_that_is_no_request_is_told(line: bytes, reason: str) -> None:
    with pytest.raises(NotOtlp, match=reason):
        groups_in(line)


@pytest.mark.parametrize("name", ["resourceLogs", "resource_metrics"])
def test_other_signals_are_told_apart(name: str) -> None:
    with pytest.raises(OtherSignal):
        groups_in(json.dumps({name: []}).encode())


def test_text_that_is_no_unicode_and_long_numbers_travel() -> None:
    line = b'{"resourceSpans":[{"resource":{"x":"\\ud800"},"scopeSpans":[{"spans":[{"n":123456789012345678901234}]}]}]}'

    [request] = requests_of((1, each) for each in groups_in(line))

    assert json.loads(request.body) == json.loads(line)


def test_nothing_makes_no_request() -> None:
    assert list(requests_of((1, each) for each in groups_in(b'{"resourceSpans":[]}'))) == []
