"""The set that is always there: healthy runs, a fault of every rule, and what is hard to tell from either.

A fault in a run of its own; every two faults in one run; faults that several rules see in the same records; and, for
every rule, what lies just below its threshold, where it must stay silent.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import combinations
from typing import Final

from benchmarks.diagnosis.runs import Label, Run, Spans, Value

HEALTHY: Final = 20
_TOOLS: Final = ("search", "fetch", "book")
_MOST_TRACES: Final = 10

Plant = Callable[[Spans, Spans], None]
"""Puts something into a run, and into the window before it."""


def runs() -> Iterator[Run]:
    """Healthy runs first, then those with faults and near misses, each with the window before it where one matters."""
    for number in range(HEALTHY):
        name = f"healthy-{number:02}"
        yield Run(_healthy(name, number).request(), Label(name, passed=True))
    for fault, plant in FAULTS.items():
        steps = tuple(range(1, 1 + WRONG_STEPS[fault]))
        yield from _planted(Label(f"fault-{fault}", passed=False, steps=steps, faults=(fault,)), plant)
    for name, (faults, plant) in OVERLAPS.items():
        yield from _planted(Label(f"overlap-{name}", passed=False, faults=faults), plant)
    for one, other in combinations(FAULTS, 2):
        label = Label(f"both-{one}-{other}", passed=False, faults=(one, other))
        yield from _planted(label, FAULTS[one], FAULTS[other])
    # Nobody says whether these passed: all that matters is that the rule stays silent.
    for rule, plant in NEAR_MISSES.items():
        yield from _planted(Label(f"near-{rule}", passed=None, silent=(rule,)), plant)


def _planted(label: Label, *plants: Plant) -> Iterator[Run]:
    now, before = Spans(label.run), Spans(f"{label.run}-before")
    for number, plant in enumerate(plants):
        now.first_trace = before.first_trace = number * _MOST_TRACES
        plant(now, before)
    yield Run(now.request(), label)
    if before.spans:
        yield Run(before.request(), Label(before.run, passed=True, of=label.run))


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
    """more: attributes; `__` in their names stands for a dot."""
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
    **more: Value,
) -> None:
    """more: as in `_chat`."""
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.agent.name": "clerk",
        "gen_ai.tool.name": tool,
    }
    attributes |= {name.replace("__", "."): value for name, value in more.items()}
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
            _tool(spans, root, index, tool="book", arguments=f'{{"q":{index}}}', failing=kind)


def _latency_regression(now: Spans, before: Spans) -> None:
    for spans, seconds in ((before, 0.2), (now, 2.0)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            _tool(spans, root, index, tool="fetch", arguments=f'{{"q":{index}}}', seconds=seconds)


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


FAULTS: Final[Mapping[str, Plant]] = {
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
WRONG_STEPS: Final[Mapping[str, int]] = {
    "tool_call_failed": 2,
    "error": 2,
    "slow_operation": 2,
    "user_signal": 2,
    "tool_loop": 6,
    "retry_storm": 3,
    "ignored_error": 3,
    "error_rate_regression": 12,
    "latency_regression": 40,
    "token_runaway": 8,
    "cost_spike": 30,
    "output_truncated": 3,
    "refusal": 3,
    "guardrail_block": 3,
    # Its agents are no numbered steps.
    "agent_pingpong": 0,
    "empty_result": 3,
}
"""How many steps of each went wrong: the first ones."""


# Faults that several rules see in the same records -------------------------------------------------------------------
def _loop_of_failures(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 6):
        _tool(now, root, index, arguments='{"q":"same"}', failing="Timeout")
    for index in (6, 7):
        _chat(now, root, index)


def _slower_and_slow(now: Spans, before: Spans) -> None:
    for spans, seconds in ((before, 0.2), (now, 40)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            _tool(spans, root, index, arguments=f'{{"q":{index}}}', seconds=seconds)


def _failing_more_often(now: Spans, before: Spans) -> None:
    for spans, failing in ((before, 1), (now, 20)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            _tool(spans, root, index, arguments=f'{{"q":{index}}}', failing="Timeout" if index <= failing else None)


def _blocking_more_often(now: Spans, before: Spans) -> None:
    for spans, failing in ((before, 1), (now, 20)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            kind = "Blocked" if index <= failing else None
            spans.add("check", {"openinference.span.kind": "GUARDRAIL"}, parent=root, index=index, failing=kind)


def _looking_for_nothing(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 7):
        _tool(now, root, index, arguments='{"q":"same"}', result="[]")


def _growing_dear_and_cut(now: Spans, before: Spans) -> None:
    for spans, cost in ((before, 0.02), (now, 0.2)):
        root = _agent(spans, "clerk")
        for index in range(1, 31):
            tokens = 2_000 * index if spans is now else 2_000
            reason = "length" if spans is now and index > 20 else "stop"
            _chat(spans, root, index, tokens=tokens, gen_ai__usage__cost=cost, llm__finish_reason=reason)


OVERLAPS: Final[Mapping[str, tuple[tuple[str, ...], Plant]]] = {
    "loop-of-failures": (("tool_call_failed", "tool_loop", "retry_storm", "ignored_error"), _loop_of_failures),
    "slower-and-slow": (("latency_regression", "slow_operation"), _slower_and_slow),
    "failing-more-often": (("tool_call_failed", "error_rate_regression"), _failing_more_often),
    "blocking-more-often": (("guardrail_block", "error_rate_regression"), _blocking_more_often),
    "looking-for-nothing": (("tool_loop", "empty_result"), _looking_for_nothing),
    "growing-dear-and-cut": (("token_runaway", "cost_spike", "output_truncated"), _growing_dear_and_cut),
}


# Near misses --------------------------------------------------------------------------------------------------------
def _nearly_failed(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index, result in enumerate(('{"errors":[],"is_error":false}', "no Error: all is well", "error code 0"), 1):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', result=result, success=True, exit_code=0)


def _nearly_an_error(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index, status in enumerate((200, 404, 429, 499), 1):
        attributes: dict[str, Value] = {
            "http.request.method": "GET",
            "http.route": "/page",
            "http.response.status_code": status,
        }
        now.add("load page", attributes, parent=root, index=index)


def _nearly_slow(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 6):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', seconds=29.999)


def _nearly_displeased(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index, feedback in enumerate(("positive", "neutral", "not bad"), 1):
        _chat(now, root, index, user__feedback=feedback, feedback__score=0.0)


def _nearly_a_loop(now: Spans, _before: Spans) -> None:
    same, other = '{"q":"same"}', '{"q":"other"}'
    for trace, calls in enumerate(([same, same, other, same, same], [same, other, same, other])):
        root = _agent(now, "clerk", trace=trace)
        for index, arguments in enumerate(calls, 1):
            _tool(now, root, index, arguments=arguments, result="found", trace=trace)
    root = _agent(now, "clerk", trace=2)
    for index in range(1, 9):
        _tool(now, root, index, arguments=same, result=f"{10 * index} %", trace=2)
    root = _agent(now, "clerk", trace=3)
    for index in range(1, 9):
        _tool(now, root, index, result="found", trace=3)


def _nearly_a_storm(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 5):
        attributes: dict[str, Value] = {
            "http.request.method": "GET",
            "http.route": "/page",
            "http.request.resend_count": index % 2,
        }
        now.add("load page", attributes, parent=root, index=index)
    for index in (5, 6):
        _tool(now, root, index, arguments=f'{{"q":{index}}}', failing="Timeout")


def _nearly_ignored(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    _tool(now, root, 1, arguments='{"q":1}', failing="Timeout")
    _tool(now, root, 2, arguments='{"q":1}', result="found")
    for index in (3, 4):
        _chat(now, root, index)
    root = _agent(now, "clerk", trace=1)
    _tool(now, root, 5, arguments='{"q":1}', failing="Timeout", trace=1)
    _chat(now, root, 6, trace=1)
    root = _agent(now, "clerk", trace=2, failing="GaveUp")
    _tool(now, root, 7, arguments='{"q":1}', failing="Timeout", trace=2)
    for index in (8, 9):
        _chat(now, root, index, trace=2)


def _nearly_failing_more(now: Spans, before: Spans) -> None:
    # Four of forty may be chance; of nineteen nothing is said, whatever they are.
    for spans, failing, few in ((before, 1, 0), (now, 4, 19)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            _tool(spans, root, index, arguments=f'{{"q":{index}}}', failing="Timeout" if index <= failing else None)
        for index in range(41, 60):
            kind = "Timeout" if index <= 40 + few else None
            _tool(spans, root, index, tool="fetch", arguments=f'{{"q":{index}}}', failing=kind)


def _nearly_slower(now: Spans, before: Spans) -> None:
    # Not by half, not by 100 ms, of too few, and only a few of many.
    for spans, by_less, by_little, of_few, some in ((before, 1.0, 0.08, 1.0, 0.2), (now, 1.4, 0.17, 3.0, 5.0)):
        root = _agent(spans, "clerk")
        for index in range(1, 41):
            for tool, seconds in (("search", by_less), ("fetch", by_little), ("few", of_few)):
                if tool != "few" or index < 30:
                    _tool(spans, root, index, tool=tool, arguments=f'{{"q":{index}}}', seconds=seconds)
            _tool(spans, root, index, tool="some", arguments=f'{{"q":{index}}}', seconds=some if index <= 4 else 0.2)


def _nearly_running_away(now: Spans, _before: Spans) -> None:
    # Five calls; not to 20,000; not fourfold; and a heavy session that there is nothing to compare with.
    for trace, inputs in enumerate(
        (
            [2_000, 8_000, 12_000, 16_000, 20_000],
            [2_000, 4_000, 8_000, 12_000, 16_000, 19_999],
            [5_001, 8_000, 10_000, 12_000, 16_000, 20_000],
            [60_000, 50_000, 40_000],
        )
    ):
        root = _agent(now, "clerk", trace=trace)
        for index, tokens in enumerate(inputs, 1):
            _chat(now, root, index, tokens=tokens, trace=trace)


def _nearly_dear(now: Spans, before: Spans) -> None:
    # Not twice, not by a dollar, of too few.
    for spans, costs in ((before, (0.1, 0.01, 0.1)), (now, (0.199, 0.04, 0.9))):
        root = _agent(spans, "clerk")
        for index in range(1, 31):
            for model, cost in zip("abc", costs, strict=True):
                if model != "c" or index < 20:
                    _chat(spans, root, index, gen_ai__request__model=f"model-{model}", gen_ai__usage__cost=cost)


def _nearly_cut_off(now: Spans, _before: Spans) -> None:
    # One of a model, and two of another's 201.
    root = _agent(now, "clerk")
    _chat(now, root, 1, gen_ai__request__model="model-b", llm__finish_reason="length")
    for index in range(2, 203):
        _chat(now, root, index, llm__finish_reason="length" if index < 4 else "stop")


def _nearly_refused(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index, reason in enumerate(("content_filter", "stop", "tool_calls", "end_turn"), 1):
        _chat(now, root, index, llm__finish_reason=reason)


def _nearly_blocked(now: Spans, _before: Spans) -> None:
    root = _agent(now, "clerk")
    for index in range(1, 6):
        attributes: dict[str, Value] = {"guardrail.blocked": index == 1, "openinference.span.kind": "GUARDRAIL"}
        now.add("check input", attributes, parent=root, index=index)


def _nearly_pingpong(now: Spans, _before: Spans) -> None:
    for trace, agents in enumerate((("planner", "writer", "planner"), ("planner", "writer", "critic") * 3)):
        root = _agent(now, "desk", trace=trace)
        for agent in agents:
            _agent(now, agent, parent=root, trace=trace)


def _nearly_empty(now: Spans, _before: Spans) -> None:
    for trace, results in enumerate((["[]", "[]"], ["[]", "found", "found"], ["[0]", '{"a":null}', "none"])):
        root = _agent(now, "clerk", trace=trace)
        for index, result in enumerate(results, 1):
            _tool(now, root, index, arguments=f'{{"q":{index}}}', result=result, trace=trace)


NEAR_MISSES: Final[Mapping[str, Plant]] = {
    "tool_call_failed": _nearly_failed,
    "error": _nearly_an_error,
    "slow_operation": _nearly_slow,
    "user_signal": _nearly_displeased,
    "tool_loop": _nearly_a_loop,
    "retry_storm": _nearly_a_storm,
    "ignored_error": _nearly_ignored,
    "error_rate_regression": _nearly_failing_more,
    "latency_regression": _nearly_slower,
    "token_runaway": _nearly_running_away,
    "cost_spike": _nearly_dear,
    "output_truncated": _nearly_cut_off,
    "refusal": _nearly_refused,
    "guardrail_block": _nearly_blocked,
    "agent_pingpong": _nearly_pingpong,
    "empty_result": _nearly_empty,
}
