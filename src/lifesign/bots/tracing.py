"""Runs as spans in the telemetry of their own project: one run is one trace and one session.

Runners that see more of a run, such as requests to models, add children of the root. Spec "Bots", section 14.
"""

from collections.abc import Sequence
from typing import Any, Final

import structlog
from sqlalchemy import Connection

from lifesign.bots import store
from lifesign.bots.budget import credits_of
from lifesign.bots.records import Bot, ProjectSettings, Run
from lifesign.bots.runners.contract import trace_of
from lifesign.clock import EpochMs, rfc3339
from lifesign.db import Database
from lifesign.telemetry.otlp import Span
from lifesign.telemetry.otlp.spans import Attributes, Resource, Scope
from lifesign.telemetry.receiver import Receiver

log = structlog.get_logger("lifesign.bots")

SERVICE: Final = Resource({"service.name": "lifesign-bots"}, 0, "")
SCOPE: Final = Scope("lifesign.bots", "", {}, 0, "")
_NS_PER_MS: Final = 1_000_000
_INTERNAL: Final = 1
_UNSET, _ERROR = 0, 2


def root_span(run: Run, bot: Bot, provider: str | None = None) -> Span | None:
    """The span of a whole run that has ended; None of one that never began. provider: the kind of its provider."""
    if run.started_at is None or run.finished_at is None:
        return None
    is_error = run.status == "error"
    attributes = _present(
        {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.id": bot.id,
            "gen_ai.agent.name": bot.name,
            "gen_ai.provider.name": provider,
            "gen_ai.request.model": run.model,
            "gen_ai.usage.input_tokens": run.input_tokens,
            "gen_ai.usage.output_tokens": run.output_tokens,
            "gen_ai.conversation.id": run.id,
            "session.id": run.id,
            "lifesign.schedule.id": run.schedule_id,
            "lifesign.run.kind": run.kind,
            "lifesign.run.reason": run.reason,
            "lifesign.credits": credits_of(run.credits),
            "lifesign.slot": None if run.slot is None else rfc3339(run.slot),
            "error.type": run.reason if is_error else None,
        }
    )
    return span(
        run,
        trace_of(run.id)[1],
        f"invoke_agent {bot.name}",
        attributes=attributes,
        parent_id="",
        started_at=run.started_at,
        finished_at=run.finished_at,
        error=(run.error_message or run.reason or "") if is_error else None,
    )


def span(
    run: Run,
    span_id: str,
    name: str,
    *,
    attributes: Attributes,
    parent_id: str,
    started_at: EpochMs,
    finished_at: EpochMs,
    error: str | None = None,
) -> Span:
    """A span of a run. span_id: 16 hexadecimal digits. error: what went wrong."""
    return Span(
        trace_id=trace_of(run.id)[0],
        span_id=span_id,
        parent_id=parent_id,
        trace_state="",
        flags=0,
        name=name,
        kind=_INTERNAL,
        start_ns=started_at * _NS_PER_MS,
        end_ns=max(started_at, finished_at) * _NS_PER_MS,
        attributes=attributes,
        dropped_attributes=0,
        events=(),
        dropped_events=0,
        links=(),
        dropped_links=0,
        status_code=_UNSET if error is None else _ERROR,
        status_message=error or "",
        resource=SERVICE,
        scope=SCOPE,
        is_cut=False,
        is_skewed=False,
    )


def _present(attributes: dict[str, Any]) -> Attributes:
    return {name: value for name, value in attributes.items() if value is not None}


class Tracer:
    """Writes runs into telemetry; that it cannot costs nothing but the spans."""

    def __init__(self, db: Database, receiver: Receiver) -> None:
        self._db = db
        self._receiver = receiver

    async def tell(self, run: Run) -> None:
        """Write down a run that has ended."""
        try:
            found = await self._db.read(_subject_of, run)
            root = None if found is None else root_span(run, found[0], _provider_kind(*found))
            if root is not None:
                await self.add(run.project_id, [root])
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended as it did
            log.warning("bot_run.not_traced", run_id=run.id, error=repr(error))

    async def add(self, project_id: str, spans: Sequence[Span]) -> None:
        """Store spans. Raises StorageUnavailable, ProjectNotFound."""
        await self._receiver.take(project_id, spans)


def _subject_of(conn: Connection, run: Run) -> tuple[Bot, ProjectSettings] | None:
    bot = store.bots_by_id(conn, [run.bot_id]).get(run.bot_id)
    return None if bot is None else (bot, store.settings_of(conn, run.project_id))


def _provider_kind(bot: Bot, settings: ProjectSettings) -> str | None:
    known = {each["name"]: each["kind"] for each in reversed(settings.options.providers)}
    if bot.options.provider == "default" and settings.options.providers:
        return str(settings.options.providers[0]["kind"])
    return known.get(bot.options.provider)
