"""Spans that others made: of pydantic-ai and of the official SDK, from their encoder to our records."""

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai import Agent, ModelRetry, UnexpectedModelBehavior
from pydantic_ai.capabilities.instrumentation import Instrumentation
from pydantic_ai.models.instrumented import InstrumentationSettings
from pydantic_ai.models.test import TestModel

from lifesign.telemetry import sessions
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import decode_protobuf
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import SlowAfter
from tests.telemetry.requests import ARRIVAL
from tests.telemetry.spans import RECEIVED_AT


class Recorded:
    """An agent's exporter, and the records of what it was given."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource.create({"service.name": "weather", "service.version": "2"}))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    def records(self) -> list[Record]:
        """In the order in which the spans ended."""
        body = encode_spans(self.exporter.get_finished_spans()).SerializeToString()
        batch = decode_protobuf(body, arrival_ns=ARRIVAL)
        assert batch.message == ""
        return records_of(batch.spans, RECEIVED_AT, slow_after=SlowAfter())


@pytest.fixture
def recorded() -> Recorded:
    return Recorded()


def agent_of(recorded: Recorded, *, repeats_usage: bool = False) -> Agent[None, str]:
    settings = InstrumentationSettings(
        tracer_provider=recorded.provider, use_aggregated_usage_attribute_names=not repeats_usage
    )
    model = TestModel(custom_output_text="sunny")
    return Agent(model, name="forecaster", capabilities=[Instrumentation(settings=settings)])


async def test_a_run_of_pydantic_ai(recorded: Recorded) -> None:
    agent = agent_of(recorded)

    @agent.tool_plain
    def look_up(city: str) -> str:
        return f"rain in {city}"

    await agent.run("Will it rain?")

    first, tool, second, root = recorded.records()
    assert [each.kind for each in (first, tool, second, root)] == ["llm", "tool", "llm", "agent"]
    assert {each.body.convention for each in (first, tool, second, root)} == {"gen_ai"}
    assert {each.agent for each in (first, tool, second, root)} == {"forecaster"}
    assert {each.version for each in (first, tool, second, root)} == {"2"}
    assert len({each.own_session for each in (first, tool, second, root)}) == 1
    assert root.own_session is not None
    assert (tool.tool, tool.operation) == ("look_up", "look_up")
    # `printf '{"city":"a"}' | sha256sum` and `printf 'rain in a' | sha256sum`, the first eight bytes.
    assert tool.args_hash == signed(0x564F7D569436E5C1)
    assert tool.result_hash == signed(0x498F395B30A14E3F)
    assert (first.model, first.body.provider, first.finish_reason) == ("test", "test", None)
    assert sessions.outcome_of([first, tool, second, root]) == "ok"


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


@pytest.mark.parametrize("repeats_usage", [False, True])
async def test_usage_of_a_run_of_pydantic_ai_is_counted_once(recorded: Recorded, *, repeats_usage: bool) -> None:
    agent = agent_of(recorded, repeats_usage=repeats_usage)

    @agent.tool_plain
    def look_up(city: str) -> str:
        return f"rain in {city}"

    await agent.run("Hello there")

    first, tool, second, root = recorded.records()
    assert first.total_tokens is not None
    assert second.total_tokens is not None
    used = first.total_tokens + second.total_tokens
    assert used > 100
    assert root.total_tokens == (used if repeats_usage else None)
    assert sessions.totals_of([first, tool, second, root]).total == used


async def test_a_tool_of_pydantic_ai_that_gives_up(recorded: Recorded) -> None:
    agent = agent_of(recorded)

    @agent.tool_plain(retries=0)
    def look_up(city: str) -> str:
        raise ModelRetry(f"no weather in {city}")

    with pytest.raises(UnexpectedModelBehavior):
        await agent.run("Will it rain?")

    call, tool, root = recorded.records()
    assert (tool.signal_type, tool.status) == ("tool_call_failed", "error")
    assert tool.error_type == root.error_type == "pydantic_ai.exceptions.UnexpectedModelBehavior"
    assert (tool.body.message or "").startswith("Tool 'look_up' exceeded max retries")
    assert (root.signal_type, root.status) == ("error", "error")
    assert sessions.outcome_of([call, tool, root]) == "failed"


def test_an_exception_of_the_official_sdk(recorded: Recorded) -> None:
    tracer = recorded.provider.get_tracer("shop", "1")

    with pytest.raises(ZeroDivisionError), tracer.start_as_current_span("divide"):
        _ = 1 // 0

    (record,) = recorded.records()
    assert (record.status, record.error_type) == ("error", "ZeroDivisionError")
    assert record.body.message == "ZeroDivisionError: integer division or modulo by zero"
    assert record.service == "weather"
