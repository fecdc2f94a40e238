"""Every row of the tables from attributes to fields: each source alone, and each before the ones after it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.prices import Prices, TokenCounts
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import decode_json
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, SOFT_ERROR, TRUNCATED
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.sources import KNOWN
from lifesign.telemetry.wire import wire
from tests.telemetry.requests import ARRIVAL, USUAL
from tests.telemetry.spans import RECEIVED_AT, START_NS, a_span, exception, read, record_of

TOOL_NAMES = ["gen_ai.tool.name", "tool.name", "tool_name", "mcp.tool.name", "ai.toolCall.name"]
ROWS: dict[str, list[str]] = {
    "operation": ["http.route", "url.template", *TOOL_NAMES],
    "tool": TOOL_NAMES,
    "agent": ["gen_ai.agent.name", "agent.name", "agent_name", "gen_ai.workflow.name", "traceloop.workflow.name"],
    "service": ["service.name"],
    "version": ["service.version", "gen_ai.agent.version"],
    "environment": [
        "deployment.environment.name",
        "deployment.environment",
        "langfuse.environment",
        "environment",
    ],
    "provider": ["gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"],
    "model": [
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.model_name",
        "llm.response.model",
        "ai.model.id",
        "model",
    ],
    "finish_reason": [
        "gen_ai.response.finish_reasons",
        "llm.finish_reason",
        "ai.response.finishReason",
        "gen_ai.completion.0.finish_reason",
        "stop_reason",
    ],
}
NUMBERS: dict[str, list[str]] = {
    "input_tokens": [
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.promptTokens",
        "ai.usage.inputTokens",
        "input_tokens",
    ],
    "output_tokens": [
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.completionTokens",
        "ai.usage.outputTokens",
        "output_tokens",
    ],
    "cache_read_tokens": [
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "cache_read_tokens",
        "cache_read_input_tokens",
    ],
    "cache_write_tokens": [
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "cache_creation_tokens",
    ],
    "reasoning_tokens": [
        "gen_ai.usage.reasoning.output_tokens",
        "llm.token_count.completion_details.reasoning",
    ],
    "total_tokens": ["gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"],
}
SESSIONS = [
    "gen_ai.conversation.id",
    "session.id",
    "langfuse.session.id",
    "traceloop.association.properties.session_id",
    "traceloop.association.properties.thread_id",
    "traceloop.association.properties.conversation_id",
    "langfuse.trace.metadata.langfuse_session_id",
    "langfuse.observation.metadata.langfuse_session_id",
    "ai.telemetry.metadata.sessionId",
    "metadata.thread_id",
    "metadata.session_id",
    "metadata.conversation_id",
    "thread_id",
    "conversation_id",
    "group_id",
]


def field(attributes: dict[str, Any], name: str) -> Any:
    record = read(attributes)
    return record.body.provider if name == "provider" else getattr(record, name)


@pytest.mark.parametrize(("name", "sources"), ROWS.items(), ids=ROWS)
def test_each_source_of_a_text_counts_and_goes_before_those_after_it(name: str, sources: list[str]) -> None:
    for index, source in enumerate(sources):
        later = dict.fromkeys(sources[index + 1 :], "later")
        assert field({source: "first"} | later, name) == "first", source
        # One that says nothing is passed over, wherever the others stand among the attributes.
        assert field(later | {source: "  "}, name) in {"later", "work", None}, source
        assert field({source: {"a": 1}, **later}, name) in {"later", "work", None}, source


@pytest.mark.parametrize(("name", "sources"), NUMBERS.items(), ids=NUMBERS)
def test_each_source_of_a_number_counts_and_goes_before_those_after_it(name: str, sources: list[str]) -> None:
    for index, source in enumerate(sources):
        later = dict.fromkeys(sources[index + 1 :], 7)
        assert field({source: 3} | later, name) == 3, source
        for nothing in (-1, "3", True, 1.5, None, [3], 10**13):
            assert field({source: nothing} | later, name) == (7 if later else None), source
        assert field({source: 4.0}, name) == 4


def test_without_a_route_or_a_tool_the_operation_is_the_span() -> None:
    assert read(name="SELECT orders").operation == "SELECT orders"


def test_names_of_tools_in_traceloop_count_on_tools_only() -> None:
    tool = read({"traceloop.span.kind": "tool", "traceloop.entity.name": "search"}, name="search.tool")
    task = read({"traceloop.span.kind": "task", "traceloop.entity.name": "plan"})

    assert (tool.kind, tool.tool, tool.operation) == ("tool", "search", "search.tool")
    assert (task.kind, task.tool) == ("workflow", None)


def test_every_record_knows_its_own_resource_and_scope() -> None:
    parts = [{"scope": {"name": name}, "spans": [USUAL]} for name in ("a", "b")]
    groups = [
        {"resource": {"attributes": {"service.name": name}}, "scopeSpans": parts} for name in ("shop", "stock", "shop")
    ]
    batch = decode_json(json.dumps({"resourceSpans": groups}).encode(), arrival_ns=ARRIVAL)

    records = records_of(batch.spans, RECEIVED_AT, slow_after=SlowAfter())

    assert [(each.service, each.origin.scope.name) for each in records] == [
        *(("shop", "a"), ("shop", "b"), ("stock", "a"), ("stock", "b"), ("shop", "a"), ("shop", "b"))
    ]


def test_what_the_resource_says_holds_for_spans_that_say_nothing() -> None:
    resource = {
        "service.name": "shop",
        "service.version": "1.2",
        "deployment.environment": "prod",
        "environment": "ignored",
        "gen_ai.agent.name": "ignored",
    }

    record = read(resource=resource)

    assert (record.service, record.version, record.environment, record.agent) == ("shop", "1.2", "prod", "shop")


@pytest.mark.parametrize(
    ("span", "resource", "expected"),
    [
        ({"deployment.environment.name": "a"}, {"deployment.environment.name": "b"}, "a"),
        ({"deployment.environment": "a"}, {"deployment.environment.name": "b"}, "b"),
        ({"deployment.environment.name": "a"}, {"deployment.environment": "b"}, "a"),
        ({"environment": "a"}, {"langfuse.environment": "b"}, "b"),
        ({"langfuse.environment": "a"}, {"langfuse.environment": "b"}, "a"),
        ({"langfuse.environment": " "}, {"langfuse.environment": "b"}, "b"),
        ({"environment": "a"}, {"environment": "b"}, "a"),
    ],
)
def test_of_one_attribute_that_of_the_span_counts_and_of_two_the_first(
    span: dict[str, str], resource: dict[str, str], expected: str
) -> None:
    assert read(span, resource=resource).environment == expected


def test_an_agent_version_counts_only_without_a_version_of_the_service() -> None:
    versions = {"gen_ai.agent.version": "agent-7"}

    assert read(versions, resource={"service.version": "1.2"}).version == "1.2"
    assert read(versions).version == "agent-7"


def test_numbers_are_texts_where_a_name_is_expected_and_long_names_are_cut() -> None:
    assert read({"service.version": 3}).version == "3"
    assert read({"gen_ai.request.model": "m" * 2000}).model == "m" * 1021 + "..."


# Tokens --------------------------------------------------------------------------------------------------------------
def test_the_total_is_what_went_in_and_came_out_whatever_the_span_says() -> None:
    record = read({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5, "gen_ai.usage.total_tokens": 99})

    assert record.total_tokens == 15
    assert read({"gen_ai.usage.output_tokens": 5}).total_tokens == 5
    assert read({"llm.token_count.total": 99}).total_tokens == 99
    assert read().total_tokens is None


def test_cached_tokens_are_a_part_of_the_input() -> None:
    record = read(
        {
            "gen_ai.usage.input_tokens": 100,
            "gen_ai.usage.cache_read.input_tokens": 60,
            "gen_ai.usage.cache_creation.input_tokens": 30,
        }
    )

    assert (record.input_tokens, record.cache_read_tokens, record.cache_write_tokens) == (100, 60, 30)


def test_bare_names_tell_the_input_without_what_is_cached() -> None:
    sent = {"input_tokens": 2, "output_tokens": 12, "cache_read_tokens": 84562, "cache_creation_tokens": 7096}

    record = read({"model": "claude-opus-4-5", **sent}, name="claude_code.llm_request")

    assert (record.kind, record.input_tokens, record.output_tokens, record.total_tokens) == ("llm", 91660, 12, 91672)
    assert (record.cache_read_tokens, record.cache_write_tokens) == (84562, 7096)
    assert read({"input_tokens": 2, "cache_read_tokens": 5}).input_tokens == 7
    assert read({"input_tokens": 2, "cache_read_input_tokens": 5}).input_tokens == 2
    assert read({"input_tokens": 2}).input_tokens == 2
    assert read({"gen_ai.usage.input_tokens": 10, "cache_read_tokens": 5}).input_tokens == 10


# Costs ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attributes", "nano"),
    [
        ({"gen_ai.usage.cost": 0.0015}, 1_500_000),
        ({"llm.cost.total": 2}, 2_000_000_000),
        ({"operation.cost": 0.1, "cost_usd": 0.2}, 100_000_000),
        ({"cost_usd": 0}, 0),
        ({"langfuse.observation.cost_details": '{"input": 0.1, "total": 0.25}'}, 250_000_000),
        ({"langfuse.observation.cost_details": {"total": 1e-9}}, 1),
        ({"langfuse.observation.cost_details": '{"input": 0.1}'}, None),
        ({"langfuse.observation.cost_details": "["}, None),
        ({"gen_ai.usage.cost": -1, "cost_usd": 0.5}, 500_000_000),
        ({"gen_ai.usage.cost": "NaN", "llm.cost.total": True}, None),
        # More than a call can cost.
        ({"cost_usd": 4001}, None),
        ({"cost_usd": 1e300}, None),
    ],
)
def test_what_a_span_says_it_cost(attributes: dict[str, Any], nano: int | None) -> None:
    record = read(attributes)

    assert (record.cost_nano, record.body.cost_source) == (nano, None if nano is None else "reported")


class OneCent:
    """A price list that remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, str, TokenCounts, EpochMs]] = []

    def price(self, provider: str | None, model: str, tokens: TokenCounts, at: EpochMs) -> int | None:
        self.asked.append((provider, model, tokens, at))
        return 10_000_000 if model != "unknown" else None


def test_a_call_that_does_not_say_what_it_cost_is_priced_at_its_start() -> None:
    prices = OneCent()
    called = {"gen_ai.system": "openai", "gen_ai.request.model": "gpt-5", "gen_ai.usage.input_tokens": 9}

    record = record_of(a_span(called | {"gen_ai.usage.cache_read_input_tokens": 4}), prices=prices)

    assert (record.cost_nano, record.body.cost_source) == (10_000_000, "priced")
    assert prices.asked == [("openai", "gpt-5", TokenCounts(9, 0, 4, 0), EpochMs(START_NS // 1_000_000))]


def test_nothing_is_priced_that_has_a_cost_no_model_or_no_tokens() -> None:
    prices = OneCent()
    model, tokens = {"gen_ai.request.model": "gpt-5"}, {"gen_ai.usage.output_tokens": 1}

    assert record_of(a_span(model | tokens | {"cost_usd": 1}), prices=prices).body.cost_source == "reported"
    assert record_of(a_span(model), prices=prices).cost_nano is None
    assert record_of(a_span(tokens), prices=prices).cost_nano is None
    assert record_of(a_span(tokens | {"model": "unknown"}), prices=prices).body.cost_source is None
    assert [model for _, model, _, _ in prices.asked] == ["unknown"]


# In and out ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "name", ["gen_ai.tool.call.arguments", "tool_arguments", "tool.parameters", "ai.toolCall.args"]
)
def test_arguments_are_kept_as_a_number_that_is_equal_for_equal_ones(name: str) -> None:
    one = read({"tool.name": "t", name: '{"a": 1, "b": [true, 2.0]}'}).args_hash

    assert one is not None
    assert read({"tool.name": "t", name: '{"b":[true,2],"a":1.0}'}).args_hash == one
    assert read({"tool.name": "t", name: {"b": [True, 2], "a": 1}}).args_hash == one
    assert read({"tool.name": "t", name: '{"a":1,"b":[true,3]}'}).args_hash != one
    for nothing in (None, "", "  "):
        assert read({"tool.name": "t", name: nothing}).args_hash is None


def test_input_and_output_are_those_of_a_tool_only_on_tools() -> None:
    for sent, got in (("input.value", "output.value"), ("traceloop.entity.input", "traceloop.entity.output")):
        tool = read({"openinference.span.kind": "TOOL", sent: "x", got: "y"})
        chain = read({"openinference.span.kind": "CHAIN", sent: "x", got: "y"})

        assert tool.args_hash is not None
        assert tool.result_hash is not None
        assert tool.args_hash != tool.result_hash
        assert (chain.args_hash, chain.result_hash) == (None, None)


@pytest.mark.parametrize("name", ["gen_ai.tool.call.result", "tool_response", "ai.toolCall.result", "output.value"])
def test_an_empty_result_is_one_and_none_is_none(name: str) -> None:
    empty: Any  # JSON
    for empty in ("", '""', "[]", "{}", "null", " \n", "[ ]", '" "', [], {}, None):
        assert read({"tool.name": "t", name: empty}).flags == EMPTY_RESULT, empty
    for full in ("0", "false", "[null]", "none", "no results", 0, False, [None]):
        assert read({"tool.name": "t", name: full}).flags == 0, full
    assert read({"tool.name": "t"}).flags == 0
    assert read({"tool.name": "t"}).result_hash is None


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"gen_ai.response.finish_reasons": ["length", "stop"]}, "length"),
        ({"gen_ai.response.finish_reasons": '["stop"]'}, "stop"),
        ({"gen_ai.response.finish_reasons": [], "stop_reason": "end_turn"}, "end_turn"),
        ({"gen_ai.response.finish_reasons": "[broken"}, "[broken"),
        ({"gen_ai.response.finish_reasons": "[]", "stop_reason": "end_turn"}, "end_turn"),
        # Escapes of what no store keeps.
        ({"gen_ai.response.finish_reasons": r'["\ud800"]'}, "\ufffd"),
        ({"gen_ai.response.finish_reasons": r'["\u0000"]'}, "\ufffd"),
        ({}, None),
    ],
)
def test_of_several_finish_reasons_the_first_counts(attributes: dict[str, Any], expected: str | None) -> None:
    assert read(attributes).finish_reason == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"pydantic_ai.tool.retry.attempt": 2, "http.request.resend_count": 7, "attempt": 9}, 2),
        ({"http.request.resend_count": 2, "attempt": 9}, 3),
        ({"http.request.resend_count": -1, "attempt": 9}, 9),
        ({"attempt": 10**9}, 65_535),
        ({"attempt": "x"}, None),
    ],
)
def test_attempts(attributes: dict[str, Any], expected: int | None) -> None:
    assert read(attributes).attempt == expected


# Failing -------------------------------------------------------------------------------------------------------------
TOOL = {"tool.name": "t"}
HTTP = {"http.request.method": "GET"}


@pytest.mark.parametrize(
    ("attributes", "status", "expected"),
    [
        ({}, 2, "error"),
        (TOOL, 2, "tool_call_failed"),
        ({}, 1, "info"),
        # Rule 2, unless the status is OK.
        (HTTP | {"http.response.status_code": 500}, 0, "error"),
        (HTTP | {"http.status_code": "503"}, 0, "error"),
        (HTTP | {"http.response.status_code": 500}, 1, "info"),
        (HTTP | {"http.response.status_code": 499}, 0, "info"),
        ({"langfuse.observation.level": "ERROR"}, 0, "error"),
        ({"level": "ERROR"}, 0, "error"),
        ({"level": "ERROR"}, 1, "info"),
        ({"level": "WARNING"}, 0, "info"),
    ],
)
def test_failing_by_status_code_or_level(attributes: dict[str, Any], status: int, expected: str) -> None:
    record = read(attributes, status=status)

    assert record.signal_type == expected
    assert record.flags & SOFT_ERROR == 0
    assert record.status == ("error" if expected != "info" else ("ok" if status == 1 else "unset"))


@pytest.mark.parametrize(
    "attributes",
    [
        {"success": False},
        {"success": "false"},
        {"gen_ai.tool.status": "error"},
        {"gen_ai.tool.status": "Failed"},
        {"gen_ai.tool.status": "failure"},
        {"exit_code": 1},
        {"exit_code": "-9"},
        {"process.exit.code": 137},
    ],
)
def test_a_tool_may_say_in_its_own_words_that_it_failed(attributes: dict[str, Any]) -> None:
    # Even where the status is OK: the call went through, what was called did not.
    for status in (0, 1):
        record = read(TOOL | attributes, status=status)
        assert (record.signal_type, record.status, record.flags) == ("tool_call_failed", "error", SOFT_ERROR)
    assert read(attributes, name="claude_code.tool.execution").signal_type == "error"
    assert read(attributes).signal_type == "info"


@pytest.mark.parametrize(
    "attributes",
    [
        {"success": True},
        {"success": "true"},
        {"success": 0},
        {"gen_ai.tool.status": "ok"},
        {"exit_code": 0},
        {"exit_code": "x"},
    ],
)
def test_a_tool_that_says_it_went_well_did(attributes: dict[str, Any]) -> None:
    assert read(TOOL | attributes).signal_type == "info"


@pytest.mark.parametrize(
    "result",
    [
        "Error: no such file",
        " \n ERROR: x",
        "Traceback (most recent call last):\n  File",
        '{"isError": true}',
        '{"content": [], "is_error": true}',
        {"isError": True},
    ],
)
def test_a_result_that_is_an_error_makes_the_call_fail(result: Any) -> None:
    record = read(TOOL | {"gen_ai.tool.call.result": result})

    assert (record.signal_type, record.flags) == ("tool_call_failed", SOFT_ERROR)
    assert read({"gen_ai.tool.call.result": result}).signal_type == "info"


@pytest.mark.parametrize(
    "result",
    [
        "error: lower case",
        "No Error: none",
        '{"isError": false}',
        '{"isError": "true"}',
        '["isError"]',
        '{"isError": tru',
    ],
)
def test_a_result_that_only_speaks_of_errors_does_not(result: str) -> None:
    assert read(TOOL | {"gen_ai.tool.call.result": result}).signal_type == "info"


def test_error_types_in_their_order() -> None:
    everything = {"error.type": "a", "exception.type": "c", "http.response.status_code": 404, "rpc.grpc.status_code": 5}
    events = (exception(type="old"), exception(type="b"))

    def error_type(without: int, *, with_events: bool) -> str | None:
        left = dict(list(everything.items())[without:])
        return read(left, status=2, events=events if with_events else ()).error_type

    assert error_type(0, with_events=True) == "a"
    assert error_type(1, with_events=True) == "b"
    assert error_type(1, with_events=False) == "c"
    assert error_type(2, with_events=False) == "http.404"
    assert error_type(3, with_events=False) == "grpc.5"
    assert error_type(4, with_events=False) == "_OTHER"


def test_codes_of_success_are_no_error_types() -> None:
    assert read({"http.response.status_code": 200, "rpc.grpc.status_code": 0}, status=2).error_type == "_OTHER"


def test_only_failing_records_have_an_error_type() -> None:
    assert read({"error.type": "timeout"}, events=(exception(type="T"),)).error_type is None


def test_messages_in_their_order() -> None:
    said = {"exception.message": "c", "error.message": "d", "tool.name": "t", "tool_response": "Error: " + "e" * 600}
    events = (exception(message="old"), exception(message="b"))

    assert read(said, status=2, status_message="a", events=events).body.message == "a"
    assert read(said, status=2, events=events).body.message == "b"
    assert read(said, status=2).body.message == "c"
    assert read(said | {"exception.message": ""}, status=2).body.message == "d"
    soft = {"tool.name": "t", "tool_response": said["tool_response"]}
    assert read(soft).body.message == "Error: " + "e" * 493
    assert read({"tool.name": "t", "tool_response": {"isError": True}}).body.message == '{"isError":true}'
    assert read().body.message is None


# Signals -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["user.feedback", "feedback", "feedback.value"])
def test_negative_feedback_is_a_signal_and_no_failure(name: str) -> None:
    for bad in ("negative", "Bad", "DOWN", "thumbs_down", "dislike", "-1", -1, -1.0):
        record = read({name: bad})
        assert (record.signal_type, record.severity, record.status) == ("user_signal", "warning", "unset"), bad
    for good in ("positive", "up", 1, 0, "badly", True, None):
        assert read({name: good}).signal_type == "info", good
    assert read({name: "bad"}, status=2).signal_type == "error"


@pytest.mark.parametrize("name", ["feedback.score", "user.feedback.score"])
def test_a_score_below_zero_is_negative_feedback(name: str) -> None:
    assert read({name: -0.5}).signal_type == "user_signal"
    for other in (0, 0.5, "-1", True):
        assert read({name: other}).signal_type == "info"


@pytest.mark.parametrize(
    ("attributes", "limit_ms"),
    [
        ({"tool.name": "t"}, 30_000),
        ({"gen_ai.operation.name": "chat"}, 60_000),
        (HTTP, 10_000),
        ({"gen_ai.operation.name": "retrieval"}, 10_000),
        ({"gen_ai.operation.name": "embeddings"}, 10_000),
        ({"gen_ai.operation.name": "search_memory"}, 10_000),
        ({"gen_ai.operation.name": "invoke_agent"}, 600_000),
        ({"gen_ai.operation.name": "plan"}, 600_000),
        ({"openinference.span.kind": "GUARDRAIL"}, 60_000),
        ({"openinference.span.kind": "EVALUATOR"}, 60_000),
        ({}, 60_000),
    ],
)
def test_slow_is_what_takes_longer_than_its_kind_may(attributes: dict[str, str], limit_ms: int) -> None:
    assert read(attributes, duration_ms=limit_ms).signal_type == "slow_operation"
    assert read(attributes, duration_ms=limit_ms - 1).signal_type == "info"
    assert read(attributes, duration_ms=limit_ms, status=2).signal_type != "slow_operation"


def test_how_long_is_slow_can_be_set() -> None:
    quick = SlowAfter(tool_ms=1, llm_ms=2, http_ms=3, agent_ms=4, other_ms=5)

    for limit_ms, attributes in enumerate(
        (TOOL, {"gen_ai.operation.name": "chat"}, HTTP, {"gen_ai.operation.name": "invoke_agent"}, {}), start=1
    ):
        for took_ms, expected in ((limit_ms, "slow_operation"), (limit_ms - 1, "info")):
            assert record_of(a_span(attributes, duration_ms=took_ms), slow_after=quick).signal_type == expected


@pytest.mark.parametrize("name", ["guardrail.blocked", "gen_ai.guardrail.blocked", "approval.denied"])
def test_what_was_blocked_is_flagged(name: str) -> None:
    assert read({name: True}).flags == BLOCKED
    assert read({name: "true"}).flags == BLOCKED
    for other in (False, "false", "no", 1, None):
        assert read({name: other}).flags == 0


def test_what_was_cut_or_ended_before_it_began_is_flagged() -> None:
    record = read(is_cut=True, is_skewed=True, duration_ms=-7)

    assert record.flags == CLOCK_SKEW | TRUNCATED
    assert (record.duration_ns, record.bucket, record.signal_type) == (0, 0, "info")


@pytest.mark.parametrize(("duration_ms", "bucket"), [(0, 0), (1, 141), (5, 174), (1000, 283), (60_000, 367)])
def test_durations_fall_into_steps_of_five_percent(duration_ms: int, bucket: int) -> None:
    # 1 ms = 1000 us: ln 1000 / ln 1.05 = 141.58; 1000 ms: 283.16; 60 s: 367.08; 5 ms: 174.57.
    assert read(duration_ms=duration_ms).bucket == bucket


# Sessions ------------------------------------------------------------------------------------------------------------
def test_each_source_of_a_session_id_counts_and_the_others_are_aliases() -> None:
    for index, source in enumerate(SESSIONS):
        later = {other: f"s-{other}" for other in SESSIONS[index + 1 :]}
        record = read({source: "mine"} | later)
        assert (record.own_session, record.body.aliases) == ("mine", tuple(later.values())), source


def test_the_session_of_the_resource_comes_last() -> None:
    resource = {"session.id": "r"}

    assert read(resource=resource).own_session == "r"
    record = read({"group_id": "g"}, resource=resource)
    assert (record.own_session, record.body.aliases) == ("g", ("r",))
    assert read({"group_id": " "}, resource=resource).own_session == "r"
    assert read().own_session is None


def test_an_id_that_is_given_twice_is_no_alias() -> None:
    assert read({"session.id": "s", "thread_id": " s ", "group_id": ""}).body.aliases == ()


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("  a b ", "a b"),
        (42, "42"),
        (42.0, "42"),
        (1.5, "1.5"),
        ("a\x07b\x9fc\n", "abc"),
        (" \x00 ", None),
        (True, None),
        (["a"], None),
        ("x" * 256, "x" * 256),
        # SHA-256 of 257 times x, by `printf 'x%.0s' $(seq 257) | sha256sum`.
        ("x" * 257, "x" * 200 + "~15eb95a462ee20bd"),
        ("größe", "größe"),
    ],
)
def test_session_ids_are_written_in_one_way(sent: Any, expected: str | None) -> None:
    assert read({"session.id": sent}).own_session == expected
    assert read({"thread_id": sent}, resource={"session.id": sent}).own_session == expected


# Anything -----------------------------------------------------------------------------------------------------------
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8).map(lambda text: text.replace("\0", "0"))
    | st.sampled_from(["Error: x", "[1.0]", '{"isError":true}', "500", "ERROR", "false", "execute_tool", "chat", "-1"])
    | st.sampled_from([r'["\ud800"]', r'["\u0000"]', r'{"isError":true,"of":"\u0000\ud800"}']),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["total", "isError"]), inner),
    max_leaves=4,
)
ATTRIBUTES = st.dictionaries(st.sampled_from(sorted(KNOWN)), JSON, max_size=12)


@given(ATTRIBUTES, ATTRIBUTES, st.sampled_from(["work", "claude_code.tool", "ai.toolCall", ""]), st.integers(0, 2))
def test_whatever_attributes_say_there_is_a_record_that_a_store_can_keep(
    attributes: dict[str, Any], resource: dict[str, Any], name: str, status: int
) -> None:
    record = record_of(a_span(attributes, name=name, resource=resource, status=status), prices=Prices())

    values = list(msgspec.structs.asdict(record).values())
    assert all(-(2**63) <= value < 2**63 for value in values if isinstance(value, int))
    texts = [value for value in (*values, record.body.provider, record.body.message) if isinstance(value, str)]
    assert "\0" not in "".join(texts)
    assert "".join(texts).encode()
    assert record.is_failing == (record.signal_type in {"error", "tool_call_failed"}) == (record.error_type is not None)
    assert record.severity == {"error": "error", "tool_call_failed": "error", "info": "info"}.get(
        record.signal_type, "warning"
    )
    assert msgspec.json.encode(wire(record, project_id="p", session_id="s"))
    # The order of attributes means nothing.
    mirrored = a_span(dict(reversed(attributes.items())), name=name, resource=resource, status=status)
    assert record_of(mirrored, prices=Prices()) == record
