"""What a run of the builtin runner did, as spans of telemetry.

A `chat` for each request to a model, an `execute_tool` for each call of a tool; children of the run's own span, whose
ids follow from the run's (see `contract.traceparent`).
"""

import json
import secrets
from typing import Any, Final

import structlog

from lifesign.bots.agent.messages import Called, Said, Spent
from lifesign.bots.runners.contract import trace_of
from lifesign.bots.starting import Started
from lifesign.bots.tracing import SCOPE, SERVICE
from lifesign.clock import Clock
from lifesign.telemetry.otlp.spans import Span
from lifesign.telemetry.receiver import Receiver

log = structlog.get_logger("lifesign.bots")

_INTERNAL, _CLIENT, _ERROR = 1, 3, 2
_NS_PER_MS: Final = 1_000_000
_MOST_SPANS: Final = 1000
_MOST_TEXT: Final = 32_000
_SKEW_NS: Final = 5_000_000_000


class Spans:
    """The spans of one run, written when it has ended."""

    def __init__(self, receiver: Receiver, clock: Clock, started: Started) -> None:
        self._receiver = receiver
        self._clock = clock
        self._run = started.run
        self._has_content = started.bot.options.telemetry_content
        self._inputs: list[dict[str, Any]] = []  # Any, here and below: JSON
        self._spans: list[Span] = []
        self.provider = ""

    def now_ns(self) -> int:
        """The time, by the clock of the server."""
        return self._clock.now() * _NS_PER_MS

    def said(self, said: Said, text: str) -> None:
        """Something was said; what a model is told next, or what it said last. text: without secrets."""
        if not self._has_content:
            return
        message = {"role": said.role, "content": text[:_MOST_TEXT]}
        if said.role != "assistant":
            self._inputs.append(message)
        elif self._spans:
            self._spans[-1].attributes["gen_ai.output.messages"] = _text([message])

    def chat(self, spent: Spent, nano_usd: int | None) -> None:
        """A request to a model. nano_usd: its price by a table."""
        told: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": self.provider,
            "gen_ai.request.model": spent.model,
        }
        if spent.error is None or spent.input_tokens:
            told |= {
                "gen_ai.usage.input_tokens": spent.input_tokens,
                "gen_ai.usage.output_tokens": spent.output_tokens,
            }
        if spent.finish_reason is not None:
            told["gen_ai.response.finish_reasons"] = [spent.finish_reason]
        if nano_usd is not None:
            told["gen_ai.usage.cost"] = nano_usd / 10**9
        if self._inputs:
            told["gen_ai.input.messages"] = _text(self._inputs)
            self._inputs = []
        # The provider's own words may repeat what it was told.
        error = None if spent.error is None else "provider_error"
        self._add(f"chat {spent.model}", _CLIENT, told, times=(spent.started_ns, spent.ended_ns), error=error)

    def tool(self, called: Called, result: str, arguments: str | None = None) -> None:
        """A call of a tool. result, arguments: without secrets."""
        told: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": called.tool,
            "gen_ai.tool.call.id": called.call_id,
        }
        if self._has_content:
            told["gen_ai.tool.call.result"] = result[:_MOST_TEXT]
            if arguments is not None:
                told["gen_ai.tool.call.arguments"] = arguments[:_MOST_TEXT]
        error = "tool_failed" if called.is_failed else None
        times = (called.started_ns, called.ended_ns)
        self._add(f"execute_tool {called.tool}", _INTERNAL, told, times=times, error=error)

    def _add(self, name: str, kind: int, told: dict[str, Any], *, times: tuple[int, int], error: str | None) -> None:
        if len(self._spans) >= _MOST_SPANS:
            return
        trace_id, root_id = trace_of(self._run.id)
        told |= {"gen_ai.conversation.id": self._run.id, "session.id": self._run.id}
        if error is not None:
            told["error.type"] = error
        # The process of a run has the machine's clock; the server's may be another.
        shift = self.now_ns() - times[1]
        shift = 0 if abs(shift) < _SKEW_NS else shift
        span = Span(
            trace_id=trace_id,
            span_id=secrets.token_hex(8),
            parent_id=root_id,
            trace_state="",
            flags=1,
            name=name,
            kind=kind,
            start_ns=times[0] + shift,
            end_ns=times[1] + shift,
            attributes=told,
            dropped_attributes=0,
            events=(),
            dropped_events=0,
            links=(),
            dropped_links=0,
            status_code=_ERROR if error is not None else 0,
            status_message="",
            resource=SERVICE,
            scope=SCOPE,
            is_cut=False,
            is_skewed=False,
        )
        self._spans.append(span)

    async def write(self) -> None:
        """Store them; where that fails the run goes on."""
        if not self._spans:
            return
        try:
            await self._receiver.take(self._run.project_id, self._spans)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with telemetry, it is not the run's fault
            log.warning("bot_run.spans_lost", run_id=self._run.id, count=len(self._spans), why=type(error).__name__)


def _text(messages: list[dict[str, Any]]) -> str:
    return json.dumps(messages, ensure_ascii=False)
