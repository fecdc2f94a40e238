"""Which attributes say what: the names that several generations of conventions gave to the same things.

Spec "Telemetry", sections 4 and 5. Of every tuple the first attribute that says something counts.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from lifesign.telemetry.records import Convention, Kind

_TOOL_NAMES: Final = ("gen_ai.tool.name", "tool.name", "tool_name", "mcp.tool.name", "ai.toolCall.name")
_TRACELOOP: Final = "traceloop.association.properties."


class Sources(NamedTuple):
    """The attributes of each field, in their order."""

    kind: tuple[str, ...]
    route: tuple[str, ...]
    tool: tuple[str, ...]
    entity: tuple[str, ...]
    agent: tuple[str, ...]
    service: tuple[str, ...]
    version: tuple[str, ...]
    environment: tuple[str, ...]
    provider: tuple[str, ...]
    model: tuple[str, ...]
    input_tokens: tuple[str, ...]
    output_tokens: tuple[str, ...]
    cache_read_tokens: tuple[str, ...]
    cache_write_tokens: tuple[str, ...]
    reasoning_tokens: tuple[str, ...]
    total_tokens: tuple[str, ...]
    cost: tuple[str, ...]
    finish_reason: tuple[str, ...]
    arguments: tuple[str, ...]
    tool_input: tuple[str, ...]
    result: tuple[str, ...]
    tool_output: tuple[str, ...]
    attempt: tuple[str, ...]
    error_type: tuple[str, ...]
    exception_type: tuple[str, ...]
    message: tuple[str, ...]
    http_method: tuple[str, ...]
    http_status: tuple[str, ...]
    grpc_status: tuple[str, ...]
    level: tuple[str, ...]
    tool_failure: tuple[str, ...]
    blocked: tuple[str, ...]
    feedback: tuple[str, ...]
    feedback_score: tuple[str, ...]
    session: tuple[str, ...]

    @property
    def has_tokens(self) -> bool:
        """Whether any number of tokens is told."""
        return any(
            (
                self.input_tokens,
                self.output_tokens,
                self.total_tokens,
                self.cache_read_tokens,
                self.cache_write_tokens,
                self.reasoning_tokens,
            )
        )


ALL: Final = Sources(
    kind=(
        "gen_ai.operation.name",
        "openinference.span.kind",
        "traceloop.span.kind",
        "langfuse.observation.type",
        "llm.request.type",
        "mcp.method.name",
    ),
    # An operation is called by its route or template, else as its tool, else as its span.
    route=("http.route", "url.template"),
    tool=_TOOL_NAMES,
    entity=("traceloop.entity.name",),
    agent=("gen_ai.agent.name", "agent.name", "agent_name", "gen_ai.workflow.name", "traceloop.workflow.name"),
    service=("service.name",),
    version=("service.version", "gen_ai.agent.version"),
    environment=("deployment.environment.name", "deployment.environment", "langfuse.environment", "environment"),
    provider=("gen_ai.provider.name", "gen_ai.system", "llm.provider", "llm.system"),
    model=(
        "gen_ai.response.model",
        "gen_ai.request.model",
        "llm.model_name",
        "llm.response.model",
        "ai.model.id",
        "model",
    ),
    input_tokens=(
        "gen_ai.usage.input_tokens",
        "gen_ai.usage.prompt_tokens",
        "llm.token_count.prompt",
        "llm.usage.prompt_tokens",
        "ai.usage.promptTokens",
        "ai.usage.inputTokens",
        "input_tokens",
    ),
    output_tokens=(
        "gen_ai.usage.output_tokens",
        "gen_ai.usage.completion_tokens",
        "llm.token_count.completion",
        "llm.usage.completion_tokens",
        "ai.usage.completionTokens",
        "ai.usage.outputTokens",
        "output_tokens",
    ),
    cache_read_tokens=(
        "gen_ai.usage.cache_read.input_tokens",
        "gen_ai.usage.cache_read_input_tokens",
        "llm.token_count.prompt_details.cache_read",
        "cache_read_tokens",
        "cache_read_input_tokens",
    ),
    cache_write_tokens=(
        "gen_ai.usage.cache_write.input_tokens",
        "gen_ai.usage.cache_creation.input_tokens",
        "gen_ai.usage.cache_creation_input_tokens",
        "llm.token_count.prompt_details.cache_write",
        "cache_creation_tokens",
    ),
    reasoning_tokens=("gen_ai.usage.reasoning.output_tokens", "llm.token_count.completion_details.reasoning"),
    total_tokens=("gen_ai.usage.total_tokens", "llm.usage.total_tokens", "llm.token_count.total"),
    cost=(
        "gen_ai.usage.cost",
        "llm.cost.total",
        "operation.cost",
        "cost_usd",
        "langfuse.observation.cost_details",
    ),
    finish_reason=(
        "gen_ai.response.finish_reasons",
        "llm.finish_reason",
        "ai.response.finishReason",
        "gen_ai.completion.0.finish_reason",
        "stop_reason",
    ),
    arguments=("gen_ai.tool.call.arguments", "tool_arguments", "tool.parameters", "ai.toolCall.args"),
    tool_input=("input.value", "traceloop.entity.input"),
    result=("gen_ai.tool.call.result", "tool_response", "ai.toolCall.result"),
    tool_output=("output.value", "traceloop.entity.output"),
    attempt=("pydantic_ai.tool.retry.attempt", "http.request.resend_count", "attempt"),
    error_type=("error.type",),
    exception_type=("exception.type",),
    message=("exception.message", "error.message"),
    http_method=("http.request.method", "http.method"),
    http_status=("http.response.status_code", "http.status_code"),
    grpc_status=("rpc.grpc.status_code",),
    level=("langfuse.observation.level", "level"),
    tool_failure=("success", "gen_ai.tool.status", "exit_code", "process.exit.code"),
    blocked=("guardrail.blocked", "gen_ai.guardrail.blocked", "approval.denied"),
    feedback=("user.feedback", "feedback", "feedback.value"),
    feedback_score=("feedback.score", "user.feedback.score"),
    session=(
        "gen_ai.conversation.id",
        "session.id",
        "langfuse.session.id",
        f"{_TRACELOOP}session_id",
        f"{_TRACELOOP}thread_id",
        f"{_TRACELOOP}conversation_id",
        "langfuse.trace.metadata.langfuse_session_id",
        "langfuse.observation.metadata.langfuse_session_id",
        "ai.telemetry.metadata.sessionId",
        "metadata.thread_id",
        "metadata.session_id",
        "metadata.conversation_id",
        "thread_id",
        "conversation_id",
        "group_id",
    ),
)
KNOWN: Final = frozenset(name for names in ALL for name in names)


# Spans of one place in a program have the same attributes, so few combinations make up nearly all traffic.
@lru_cache(maxsize=2048)
def present(names: tuple[str, ...]) -> Sources:
    """The sources of each field among the attributes that are there. names: some of KNOWN."""
    there = frozenset(names)
    return Sources(*(tuple(name for name in field if name in there) for field in ALL))


# Kinds ---------------------------------------------------------------------------------------------------------------
_OPENINFERENCE: Final[Mapping[str, Kind]] = {
    "LLM": "llm",
    "TOOL": "tool",
    "AGENT": "agent",
    "RETRIEVER": "retrieval",
    "RERANKER": "retrieval",
    "EMBEDDING": "embedding",
    "CHAIN": "workflow",
    "GUARDRAIL": "guardrail",
    "EVALUATOR": "evaluation",
}
KIND_OF_VALUE: Final[Mapping[str, Mapping[str, Kind]]] = {
    "gen_ai.operation.name": {
        "chat": "llm",
        "generate_content": "llm",
        "text_completion": "llm",
        "embeddings": "embedding",
        "retrieval": "retrieval",
        "execute_tool": "tool",
        "invoke_agent": "agent",
        "create_agent": "agent",
        "invoke_workflow": "workflow",
        "plan": "workflow",
    },
    "openinference.span.kind": {name.lower(): kind for name, kind in _OPENINFERENCE.items()},
    "traceloop.span.kind": {"workflow": "workflow", "task": "workflow", "agent": "agent", "tool": "tool"},
    "langfuse.observation.type": {
        "generation": "llm",
        "tool": "tool",
        "agent": "agent",
        "retriever": "retrieval",
        "embedding": "embedding",
        "guardrail": "guardrail",
        "evaluator": "evaluation",
        "chain": "workflow",
        "span": "other",
    },
    "llm.request.type": {"chat": "llm", "completion": "llm", "embedding": "embedding"},
    "mcp.method.name": {"tools/call": "tool"},
}
MEMORY_SUFFIXES: Final = ("_memory", "_memory_store")
KIND_OF_NAME: Final[Mapping[str, Kind]] = {
    "claude_code.llm_request": "llm",
    "claude_code.tool": "tool",
    "claude_code.tool.execution": "other",
    "claude_code.tool.blocked_on_user": "other",
    "claude_code.interaction": "agent",
    "ai.toolCall": "tool",
}
CLAUDE_CODE: Final = "claude_code."
VERCEL_AI: Final = "ai."
VERCEL_AI_LLM: Final = (".doGenerate", ".doStream")

# Conventions ---------------------------------------------------------------------------------------------------------
# From the particular to the general: what builds upon gen_ai.* also sends gen_ai.*.
CONVENTIONS: Final[tuple[Convention, ...]] = (
    "generic",
    "gen_ai",
    "openllmetry",
    "openinference",
    "langfuse",
    "vercel_ai",
    "claude_code",
)
_CONVENTION_OF_PREFIX: Final[Mapping[str, Convention]] = {
    "gen_ai.": "gen_ai",
    "mcp.": "gen_ai",
    "traceloop.": "openllmetry",
    "llm.request.type": "openllmetry",
    "llm.usage.": "openllmetry",
    "openinference.": "openinference",
    "llm.token_count.": "openinference",
    "llm.model_name": "openinference",
    "langfuse.": "langfuse",
    "ai.": "vercel_ai",
}


class _Ranks(dict[str, int]):
    """How particular the convention of an attribute is; of the names seen first remembered."""

    def __missing__(self, name: str) -> int:
        rank = 0
        for prefix, convention in _CONVENTION_OF_PREFIX.items():
            if name.startswith(prefix):
                rank = CONVENTIONS.index(convention)
        if len(self) < _REMEMBERED_NAMES and len(name) <= _REMEMBERED_LENGTH:
            self[name] = rank
        return rank


_REMEMBERED_NAMES: Final = 4096
_REMEMBERED_LENGTH: Final = 128
_rank_of = _Ranks().__getitem__


def convention_of(span_name: str, attributes: Mapping[str, object]) -> Convention:
    """Whose names a span uses."""
    if span_name.startswith(CLAUDE_CODE):
        return "claude_code"
    if span_name.startswith(VERCEL_AI):
        return "vercel_ai"
    return CONVENTIONS[max(map(_rank_of, attributes), default=0)]
