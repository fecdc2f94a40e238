"""HTTP of the page of a run: what became of it, what was said in it, and what people decide about it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

import orjson
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.bots import ending, looking, rules
from lifesign.bots.execution import Executor
from lifesign.bots.looking import SeenRun
from lifesign.bots.records import Run
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.faults import invalid
from lifesign.http.context import context_of
from lifesign.http.paging import is_id
from lifesign.web.access import form_for, person_of
from lifesign.web.bot_routes import RUNS, SECTION, done, may_of
from lifesign.web.pages import page
from lifesign.web.routes import to

router = APIRouter(include_in_schema=False)

_LONGEST: Final = 20_000
_is_run = is_id("run")
_KINDS: Final = {"scheduled": "by its schedule", "catch_up": "caught up", "trigger": "by hand"}
_DECISIONS: Final = {"approve": True, "decline": False}


class ToolCall(NamedTuple):
    """A call of a tool that the model wants. is_waiting: somebody is asked about it."""

    name: str
    arguments: str
    is_waiting: bool


class Said(NamedTuple):
    """One message of a transcript."""

    role: str
    at: EpochMs
    name: str
    text: str
    calls: list[ToolCall]


@router.get("/runs/{run_id}")
async def show(request: Request, run_id: str) -> Response:
    """One run: its end and why, what it used, and what was said, message by message."""
    person = await person_of(request)
    if not _is_run(run_id):
        raise rules.BotRunNotFound
    context = context_of(request)
    seq, seen = await context.db.read(_seen, person.shown.project_id, run_id)
    run = seen.run
    look, word = RUNS[run.status]
    is_open = run.status in rules.OPEN
    said = [_said(each, seen.waits_with) for each in seen.entries]
    return page(
        request,
        "bot_run",
        person,
        section=SECTION,
        seen=seen,
        run=run,
        look=look,
        word=word,
        kind=_KINDS[run.kind],
        done=done(run),
        said=said,
        waiting=[call for each in said for call in each.calls if call.is_waiting],
        tools=_tools(run),
        notified=_notified(run),
        trace_id=run.id.removeprefix("run_") if run.started_at is not None else "",
        is_open=is_open,
        is_ending=is_open and run.cancel_reason is not None,
        may=may_of(person),
        seq=seq,
        watched=run.bot_id,
    )


def _seen(conn: Connection, project_id: str, run_id: str) -> tuple[int, SeenRun]:
    return events.latest_seq(conn), looking.run(conn, project_id, run_id)


def _said(entry: Mapping[str, Any], waits_with: str | None) -> Said:  # Any: JSON that a runner wrote
    calls = entry.get("tool_calls")
    return Said(
        str(entry.get("role", "")),
        EpochMs(entry["at"]),
        str(entry.get("name", "")),
        _cut(str(entry.get("content", ""))),
        [
            ToolCall(
                str(each.get("name", "")),
                _cut(_text(each.get("arguments"))),
                waits_with is not None and each.get("id") == waits_with,
            )
            for each in (calls if isinstance(calls, list) else [])
            if isinstance(each, dict)
        ],
    )


def _text(value: Any) -> str:  # Any: JSON
    return value if isinstance(value, str) else orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text) - _LONGEST:,} more characters)"


def _tools(run: Run) -> Sequence[str]:
    return [] if run.tools is None else orjson.loads(run.tools)


def _notified(run: Run) -> str:
    told: Mapping[str, Any] = {} if run.notice is None else orjson.loads(run.notice)
    return _NOTICES.get(told.get("state", ""), "")


_NOTICES: Final = {
    "sent": "told",
    "suppressed": "not told: the same was told a short while ago",
    "no_channel": "not told: there is no channel for it",
}


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/runs/{run_id}/cancel")
async def cancel(request: Request, run_id: str) -> Response:
    """End a run: one that waits at once, one that goes on within 5 s."""
    person, _ = await form_for(request, "bots:run")
    context = context_of(request)
    run: Run = await context.db.write(ending.cancel, person.shown.project_id, _known(run_id), context.now())
    if run.status in rules.ENDED:
        cast("Executor", request.app.state.bots).ends.tell(run.id)
    return to(f"/runs/{run.id}")


@router.post("/runs/{run_id}/decide")
async def decide(request: Request, run_id: str) -> Response:
    """Approve or decline the call of a tool that a run waits with."""
    person, form = await form_for(request, "bots:run")
    is_approved = _DECISIONS.get(form.get("decision"))
    if is_approved is None:
        raise invalid("decision", "must be approve or decline")
    context = context_of(request)
    run: Run = await context.db.write(
        ending.approve, person.shown.project_id, _known(run_id), is_approved=is_approved, now=context.now()
    )
    return to(f"/runs/{run.id}")


def _known(run_id: str) -> str:
    if not _is_run(run_id):
        raise rules.BotRunNotFound
    return run_id
