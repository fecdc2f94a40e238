"""The set that is always there: one fault of every rule, planted in a run of its own, and healthy runs."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from benchmarks.diagnosis.runs import Label, Run, Spans, Value

HEALTHY: Final = 20
_TOOLS: Final = ("search", "fetch", "book")


def runs() -> Iterator[Run]:
    """Healthy runs first, then a run for each fault, with the window before it where its rule compares."""
    for number in range(HEALTHY):
        name = f"healthy-{number:02}"
        yield Run(_healthy(name, number).request(), Label(name, passed=True))
    for fault, plant in FAULTS.items():
        name = f"fault-{fault}"
        now, before = Spans(name), Spans(f"{name}-before")
        plant(now, before)
        yield Run(now.request(), Label(name, passed=False, fault=fault))
        if before.spans:
            yield Run(before.request(), Label(before.run, passed=True, of=name))


def healthy_runs() -> Iterator[Run]:
    """Those in which nothing is wrong."""
    return (run for run in runs() if run.label.passed and run.label.of is None)


def _healthy(name: str, number: int) -> Spans:
    """An agent that talks and calls tools with other arguments each time; now and then a tool is called anew."""
    spans = Spans(name)
    root = _agent(spans, "clerk")
    for step in range(1, 4 + number % 5):
        _chat(spans, root, step, tokens=800 + 90 * step)
        _tool(spans, root, step, tool=_TOOLS[step % 3], arguments=f'{{"q":"{name} {step}"}}', result=f"found {step}")
    _chat(spans, root, 9, tokens=900)
    return spans


# What runs are made of ----------------------------------------------------------------------------------------------
def _agent(spans: Spans, agent: str, *, parent: str = "", trace: int = 0, failing: str | None = None) -> str:
    attributes: dict[str, Value] = {"gen_ai.operation.name": "invoke_agent", "gen_ai.agent.name": agent}
    return spans.add(f"invoke_agent {agent}", attributes, parent=parent, trace=trace, failing=failing, seconds=5)


def _chat(spans: Spans, parent: str, index: int, *, tokens: int = 800, trace: int = 0, **more: Value) -> None:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.agent.name": "clerk",
        "gen_ai.request.model": "model-a",
        "gen_ai.usage.input_tokens": tokens,
        "gen_ai.usage.output_tokens": 50,
    }
    attributes |= {name.replace("__", "."): value for name, value in more.items()}
    spans.add("chat model-a", attributes, parent=parent, index=index, trace=trace)


def _tool(
    spans: Spans,
    parent: str,
    index: int,
    *,
    tool: str = "search",
    arguments: str | None = None,
    result: str | None = None,
    trace: int = 0,
    seconds: float = 0.5,
    failing: str | None = None,
) -> None:
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.agent.name": "clerk",
        "gen_ai.tool.name": tool,
    }
    if arguments is not None:
        attributes["gen_ai.tool.call.arguments"] = arguments
    if result is not None:
        attributes["gen_ai.tool.call.result"] = result
    spans.add(
        f"execute_tool {tool}", attributes, parent=parent, index=index, trace=trace, seconds=seconds, failing=failing
    )


# Faults -------------------------------------------------------------------------------------------------------------
def _tool_call_failed(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', failing="Timeout")


def _error(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2):
        now.add(
            "load page", {"http.request.method": "GET", "http.route": "/page"}, parent=root, index=index, failing="503"
        )


def _slow_operation(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2):
        _tool(now, root, index, seconds=45)


def _user_signal(now: Spans, _before: Spans) -> None:
    for trace in (1, 2):
        root = _agent(now, "clerk", trace=trace)
        _chat(now, root, trace, trace=trace, user__feedback="negative")


def _tool_loop(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 7):
        _tool(now, root, index, arguments='{"q":"same"}', result="nothing new")


def _retry_storm(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 4):
        attributes: dict[str, Value] = {
            "http.request.method": "GET",
            "http.route": "/page",
            "http.request.resend_count": 3 + index,
        }
        now.add("load page", attributes, parent=root, index=index)


def _ignored_error(now: Spans, _before: Spans) -> None:
    # Failures of several kinds, so that none of them has most of those that were ignored.
    root = _agent(now, "clerk")
    for index, kind in enumerate(("Timeout", "Refused", "Forbidden"), 1):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', failing=kind)
    for index in (4, 5):
        _chat(now, root, index)


def _error_rate_regression(now: Spans, before: Spans) -> None:
    for spans, failing in ((before, 1), (now, 12)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            kind = ("Timeout", "Refused", "Forbidden")[index % 3] if index <= failing else None
            _tool(spans, root, index, arguments=f'{{"q":{index}}}', failing=kind)


def _latency_regression(now: Spans, before: Spans) -> None:
    for spans, seconds in ((before, 0.2), (now, 2.0)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            _tool(spans, root, index, arguments=f'{{"q":{index}}}', seconds=seconds)


def _token_runaway(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 9):
        _chat(now, root, index, tokens=3_000 * index)


def _cost_spike(now: Spans, before: Spans) -> None:
    for spans, cost in ((before, 0.02), (now, 0.2)):
        root = _agent(spans, "clerk")
        for index in range(1, 31):
            _chat(spans, root, index, gen_ai__usage__cost=cost)


def _output_truncated(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2, 3):
        _chat(now, root, index, llm__finish_reason="length")


def _refusal(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2, 3):
        _chat(now, root, index, llm__finish_reason="content_filter")


def _guardrail_block(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in (1, 2, 3):
        now.add(
            "check input", {"guardrail.blocked": True, "openinference.span.kind": "GUARDRAIL"}, parent=root, index=index
        )


def _agent_pingpong(now: Spans, _before: Spans) -> None:
    root = _agent(now, "desk")
    for _ in range(3):
        _agent(now, "planner", parent=root)
        _agent(now, "writer", parent=root)


def _empty_result(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 4):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', result="[]")


FAULTS: Final[Mapping[str, Callable[[Spans, Spans], None]]] = {
    "tool_call_failed": _tool_call_failed,
    "error": _error,
    "slow_operation": _slow_operation,
    "user_signal": _user_signal,
    "tool_loop": _tool_loop,
    "retry_storm": _retry_storm,
    "ignored_error": _ignored_error,
    "error_rate_regression": _error_rate_regression,
    "latency_regression": _latency_regression,
    "token_runaway": _token_runaway,
    "cost_spike": _cost_spike,
    "output_truncated": _output_truncated,
    "refusal": _refusal,
    "guardrail_block": _guardrail_block,
    "agent_pingpong": _agent_pingpong,
    "empty_result": _empty_result,
}
