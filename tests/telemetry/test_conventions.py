"""Spans as the libraries of each convention send them, and which kind each is."""

from typing import Any

import pytest

from lifesign.telemetry.records import SOFT_ERROR, Record
from tests.telemetry.spans import a_span, exception, read, record_of


# Kinds ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("attribute", "values"),
    [
        (
            "gen_ai.operation.name",
            {
                "chat": "llm",
                "Chat": "llm",
                "generate_content": "llm",
                "text_completion": "llm",
                "embeddings": "embedding",
                "retrieval": "retrieval",
                "execute_tool": "tool",
                "invoke_agent": "agent",
                "create_agent": "agent",
                "invoke_workflow": "workflow",
                "plan": "workflow",
                "search_memory": "memory",
                "create_memory_store": "memory",
                "something_new": "other",
            },
        ),
        (
            "openinference.span.kind",
            {
                "LLM": "llm",
                "TOOL": "tool",
                "AGENT": "agent",
                "RETRIEVER": "retrieval",
                "RERANKER": "retrieval",
                "EMBEDDING": "embedding",
                "CHAIN": "workflow",
                "GUARDRAIL": "guardrail",
                "EVALUATOR": "evaluation",
                "UNKNOWN": "other",
            },
        ),
        ("traceloop.span.kind", {"workflow": "workflow", "task": "workflow", "agent": "agent", "tool": "tool"}),
        (
            "langfuse.observation.type",
            {
                "generation": "llm",
                "tool": "tool",
                "agent": "agent",
                "retriever": "retrieval",
                "embedding": "embedding",
                "guardrail": "guardrail",
                "evaluator": "evaluation",
                "chain": "workflow",
                "span": "other",
                "event": "other",
            },
        ),
        ("llm.request.type", {"chat": "llm", "completion": "llm", "embedding": "embedding", "rerank": "other"}),
        ("mcp.method.name", {"tools/call": "tool", "tools/list": "other"}),
    ],
)
def test_kinds_that_an_attribute_names(attribute: str, values: dict[str, str]) -> None:
    assert {value: read({attribute: value}).kind for value in values} == values


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("claude_code.llm_request", "llm"),
        ("claude_code.tool", "tool"),
        ("claude_code.tool.execution", "other"),
        ("claude_code.tool.blocked_on_user", "other"),
        ("claude_code.interaction", "agent"),
        ("ai.toolCall", "tool"),
        ("ai.generateText.doGenerate", "llm"),
        ("ai.streamText.doStream", "llm"),
        ("ai.generateText", "workflow"),
        ("ai.embed", "workflow"),
        ("airport", "other"),
    ],
)
def test_kinds_that_a_name_tells(name: str, kind: str) -> None:
    assert read(name=name).kind == kind


def test_the_kinds_of_spans_that_do_not_say_it() -> None:
    assert read({"mcp.tool.name": "t", "model": "m", "input_tokens": 1}).kind == "tool"
    assert read({"model": "m", "output_tokens": 1, "http.method": "POST"}).kind == "llm"
    # Some tell the sum of both and nothing else.
    assert read({"model": "m", "gen_ai.usage.total_tokens": 3}).kind == "llm"
    assert read({"model": "m", "http.request.method": "POST"}).kind == "http"
    assert read({"http.method": "POST"}).kind == "http"
    assert read({"model": "m"}).kind == "other"
    assert read({"input_tokens": 1}).kind == "other"


def test_the_first_attribute_that_names_a_kind_counts_and_names_come_after_attributes() -> None:
    sayings = {
        "gen_ai.operation.name": "chat",
        "openinference.span.kind": "TOOL",
        "traceloop.span.kind": "agent",
        "langfuse.observation.type": "retriever",
        "llm.request.type": "embedding",
        "mcp.method.name": "tools/call",
    }
    kinds = ["llm", "tool", "agent", "retrieval", "embedding", "tool"]

    for index, kind in enumerate(kinds):
        left = dict(list(sayings.items())[index:])
        assert read(left, name="claude_code.interaction").kind == kind
        assert read(dict(reversed(left.items()))).kind == kind
    assert read({"gen_ai.operation.name": "new", "traceloop.span.kind": "agent"}).kind == "agent"


# Whole spans ---------------------------------------------------------------------------------------------------------
def told(record: Record) -> dict[str, Any]:
    """What a record says, without what it leaves open."""
    fields = {
        "kind": record.kind,
        "operation": record.operation,
        "agent": record.agent,
        "tool": record.tool,
        "provider": record.body.provider,
        "model": record.model,
        "finish": record.finish_reason,
        "in": record.input_tokens,
        "out": record.output_tokens,
        "read": record.cache_read_tokens,
        "written": record.cache_write_tokens,
        "reasoning": record.reasoning_tokens,
        "total": record.total_tokens,
        "cost": record.cost_nano,
        "session": record.own_session,
        "error": record.error_type,
        "message": record.body.message,
        "convention": record.body.convention,
    }
    return {name: value for name, value in fields.items() if value is not None}


def test_a_chat_in_the_current_conventions() -> None:
    record = read(
        {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "anthropic",
            "gen_ai.conversation.id": "conv_5j66UpCpwteGg4YSxUnt7lPY",
            "gen_ai.request.model": "claude-sonnet-4-5",
            "gen_ai.request.max_tokens": 200,
            "gen_ai.response.id": "msg_01",
            "gen_ai.response.model": "claude-sonnet-4-5-20250929",
            "gen_ai.response.finish_reasons": ["end_turn"],
            "gen_ai.usage.input_tokens": 1200,
            "gen_ai.usage.output_tokens": 180,
            "gen_ai.usage.cache_read.input_tokens": 1000,
            "gen_ai.usage.cache_creation.input_tokens": 100,
            "server.address": "api.anthropic.com",
        },
        name="chat claude-sonnet-4-5",
    )

    assert told(record) == {
        "kind": "llm",
        "operation": "chat claude-sonnet-4-5",
        "provider": "anthropic",
        "model": "claude-sonnet-4-5-20250929",
        "finish": "end_turn",
        "in": 1200,
        "out": 180,
        "read": 1000,
        "written": 100,
        "total": 1380,
        "session": "conv_5j66UpCpwteGg4YSxUnt7lPY",
        "convention": "gen_ai",
    }


def test_a_chat_in_the_conventions_of_2024() -> None:
    record = read(
        {
            "gen_ai.system": "openai",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.prompt_tokens": 12,
            "gen_ai.usage.completion_tokens": 3,
        },
        name="openai.chat",
        resource={"service.name": "support-bot"},
    )

    assert told(record) == {
        "kind": "llm",
        "operation": "openai.chat",
        "agent": "support-bot",
        "provider": "openai",
        "model": "gpt-4o",
        "in": 12,
        "out": 3,
        "total": 15,
        "convention": "gen_ai",
    }


def test_a_tool_and_its_agent_in_the_current_conventions() -> None:
    tool = read(
        {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": "get_weather",
            "gen_ai.tool.call.id": "call_1",
            "gen_ai.tool.call.arguments": '{"city":"Bern"}',
            "error.type": "TimeoutError",
        },
        name="execute_tool get_weather",
        status=2,
        events=(exception(type="builtins.TimeoutError", message="took too long"),),
    )
    agent = read(
        {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": "planner", "gen_ai.agent.version": "3"},
        name="invoke_agent planner",
    )

    assert told(tool) == {
        "kind": "tool",
        "operation": "get_weather",
        "tool": "get_weather",
        "error": "TimeoutError",
        "message": "took too long",
        "convention": "gen_ai",
    }
    assert tool.signal_type == "tool_call_failed"
    assert told(agent) == {
        "kind": "agent",
        "operation": "invoke_agent planner",
        "agent": "planner",
        "convention": "gen_ai",
    }
    assert agent.version == "3"


def test_a_span_of_openinference() -> None:
    record = read(
        {
            "openinference.span.kind": "LLM",
            "llm.model_name": "gpt-4o-mini",
            "llm.provider": "openai",
            "llm.system": "openai",
            "llm.token_count.prompt": 100,
            "llm.token_count.completion": 20,
            "llm.token_count.total": 120,
            "llm.token_count.prompt_details.cache_read": 64,
            "llm.token_count.completion_details.reasoning": 8,
            "llm.cost.total": 0.000027,
            "llm.input_messages.0.message.role": "user",
            "input.value": "hello",
            "session.id": "s-9",
            "metadata.thread_id": "t-9",
        },
        name="ChatCompletion",
    )

    assert told(record) == {
        "kind": "llm",
        "operation": "ChatCompletion",
        "provider": "openai",
        "model": "gpt-4o-mini",
        "in": 100,
        "out": 20,
        "read": 64,
        "reasoning": 8,
        "total": 120,
        "cost": 27_000,
        "session": "s-9",
        "convention": "openinference",
    }
    assert record.body.aliases == ("t-9",)
    assert record.args_hash is None


def test_spans_of_openllmetry() -> None:
    call = read(
        {
            "gen_ai.system": "OpenAI",
            "llm.request.type": "chat",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.response.model": "gpt-4o-2024-08-06",
            "gen_ai.usage.prompt_tokens": 50,
            "gen_ai.usage.completion_tokens": 6,
            "llm.usage.total_tokens": 56,
            "gen_ai.completion.0.finish_reason": "stop",
            "traceloop.workflow.name": "joke_creation",
            "traceloop.association.properties.thread_id": "th-1",
        },
        name="openai.chat",
    )
    tool = read(
        {
            "traceloop.span.kind": "tool",
            "traceloop.entity.name": "history_jokes",
            "traceloop.entity.input": '{"args": []}',
            "traceloop.entity.output": "[]",
            "traceloop.workflow.name": "joke_creation",
        },
        name="history_jokes.tool",
    )

    assert told(call) == {
        "kind": "llm",
        "operation": "openai.chat",
        "agent": "joke_creation",
        "provider": "OpenAI",
        "model": "gpt-4o-2024-08-06",
        "finish": "stop",
        "in": 50,
        "out": 6,
        "total": 56,
        "session": "th-1",
        "convention": "openllmetry",
    }
    assert (tool.kind, tool.tool, tool.agent) == ("tool", "history_jokes", "joke_creation")
    assert tool.body.convention == "openllmetry"
    assert tool.args_hash is not None


def test_a_generation_of_langfuse() -> None:
    record = read(
        {
            "langfuse.observation.type": "generation",
            "langfuse.observation.model.name": "gpt-4o",
            "langfuse.observation.cost_details": '{"input": 0.001, "output": 0.0005, "total": 0.0015}',
            "langfuse.observation.level": "ERROR",
            "langfuse.observation.status_message": "rate limited",
            "langfuse.session.id": "ls-1",
            "langfuse.trace.metadata.langfuse_session_id": "ls-2",
            "langfuse.environment": "staging",
            "gen_ai.request.model": "gpt-4o",
            "gen_ai.usage.input_tokens": 7,
        },
        name="my-generation",
    )

    assert told(record) == {
        "kind": "llm",
        "operation": "my-generation",
        "model": "gpt-4o",
        "in": 7,
        "total": 7,
        "cost": 1_500_000,
        "session": "ls-1",
        "error": "_OTHER",
        "convention": "langfuse",
    }
    assert (record.environment, record.signal_type, record.body.aliases) == ("staging", "error", ("ls-2",))


def test_spans_of_claude_code() -> None:
    call = read(
        {
            "session.id": "8f2e",
            "model": "claude-opus-4-5-20251101",
            "input_tokens": 2,
            "output_tokens": 310,
            "cache_read_tokens": 84562,
            "cache_creation_tokens": 7096,
            "cost_usd": 0.0945,
            "stop_reason": "tool_use",
            "attempt": 1,
            "success": True,
        },
        name="claude_code.llm_request",
    )
    tool = read({"session.id": "8f2e", "tool_name": "Bash", "tool_response": "ok"}, name="claude_code.tool")
    run = read({"session.id": "8f2e", "success": False}, name="claude_code.tool.execution")

    assert told(call) == {
        "kind": "llm",
        "operation": "claude_code.llm_request",
        "model": "claude-opus-4-5-20251101",
        "finish": "tool_use",
        "in": 91660,
        "out": 310,
        "read": 84562,
        "written": 7096,
        "total": 91970,
        "cost": 94_500_000,
        "session": "8f2e",
        "convention": "claude_code",
    }
    assert call.attempt == 1
    assert told(tool) == {
        "kind": "tool",
        "operation": "Bash",
        "tool": "Bash",
        "session": "8f2e",
        "convention": "claude_code",
    }
    assert (run.kind, run.signal_type, run.flags) == ("other", "error", SOFT_ERROR)


def test_spans_of_the_vercel_ai_sdk() -> None:
    call = read(
        {
            "operation.name": "ai.generateText.doGenerate",
            "ai.operationId": "ai.generateText.doGenerate",
            "ai.model.id": "gpt-4o",
            "ai.model.provider": "openai.chat",
            "ai.response.finishReason": "tool-calls",
            "ai.usage.promptTokens": 20,
            "ai.usage.completionTokens": 4,
            "ai.telemetry.metadata.sessionId": "v-1",
            "gen_ai.system": "openai.chat",
        },
        name="ai.generateText.doGenerate",
    )
    tool = read(
        {"ai.toolCall.name": "weather", "ai.toolCall.args": '{"city":"Bern"}', "ai.toolCall.result": '"rain"'},
        name="ai.toolCall",
    )
    outer = read({"ai.usage.inputTokens": 20, "ai.usage.outputTokens": 4}, name="ai.generateText")

    assert told(call) == {
        "kind": "llm",
        "operation": "ai.generateText.doGenerate",
        "provider": "openai.chat",
        "model": "gpt-4o",
        "finish": "tool-calls",
        "in": 20,
        "out": 4,
        "total": 24,
        "session": "v-1",
        "convention": "vercel_ai",
    }
    assert told(tool) == {"kind": "tool", "operation": "weather", "tool": "weather", "convention": "vercel_ai"}
    assert (outer.kind, outer.total_tokens) == ("workflow", 24)


def test_plain_spans_of_http_servers_and_databases() -> None:
    request = read(
        {
            "http.request.method": "GET",
            "http.route": "/orders/{id}",
            "url.path": "/orders/17",
            "http.response.status_code": 502,
        },
        name="GET /orders/{id}",
        resource={"service.name": "orders", "deployment.environment.name": "prod"},
    )
    query = record_of(a_span({"db.system.name": "postgresql", "db.query.text": "SELECT 1"}, name="SELECT orders"))

    assert told(request) == {
        "kind": "http",
        "operation": "/orders/{id}",
        "agent": "orders",
        "error": "http.502",
        "convention": "generic",
    }
    assert (request.status, request.environment) == ("error", "prod")
    assert told(query) == {"kind": "other", "operation": "SELECT orders", "convention": "generic"}
