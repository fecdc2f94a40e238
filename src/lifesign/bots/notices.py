"""What people are told of bots: rows of the outbox, in the transaction of what they tell of."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection

from lifesign.bots import run_store, store
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule
from lifesign.bots.reports import USUAL_COOLDOWN_S, Mode, Report, telling
from lifesign.channels import outbox
from lifesign.channels import service as channels
from lifesign.channels.message import Message, NoticePart
from lifesign.channels.outbox import Draft
from lifesign.channels.rules import PRIORITY_LATER, target_key
from lifesign.clock import EpochMs
from lifesign.projects import service as projects


class Subject(NamedTuple):
    """Whom a notice is about."""

    schedule: Schedule
    bot: Bot
    settings: ProjectSettings


def tell_of_run(
    conn: Connection, subject: Subject, run: Run, *, report: Report | None, error: Report | None, now: EpochMs
) -> tuple[dict[str, Any] | None, str | None]:
    """Tell people of a run that ended, if they want to be told; what the log says of it, and the error they know of."""
    schedule, notify = subject.schedule, subject.schedule.options.notify
    mode: Mode = notify.get("mode", "noteworthy")
    said = error or report
    decided = telling(
        mode,
        report=report,
        error=error,
        known_error=schedule.error_key,
        told_at=None if said is None else run_store.told_at(conn, schedule.id, said.key),
        cooldown_s=notify.get("cooldown_seconds", USUAL_COOLDOWN_S),
        now=now,
    )
    sent = 0
    for n, (each, is_resolved) in enumerate(decided.reports, start=1):
        sent += tell(conn, subject, each, cause=run.id, n=n, run_id=run.id, is_resolved=is_resolved, now=now)
        if not is_resolved:
            run_store.mark_told(conn, schedule.id, schedule.project_id, each.key, now)
    if decided.is_suppressed:
        return {"state": "suppressed", "key": said.key if said else None}, decided.error_key
    if not decided.reports:
        return None, decided.error_key
    return {"state": "sent" if sent else "no_channel", "key": decided.reports[-1][0].key}, decided.error_key


def tell(
    conn: Connection,
    subject: Subject,
    report: Report,
    *,
    cause: str,
    n: int,
    now: EpochMs,
    run_id: str | None = None,
    is_resolved: bool = False,
) -> int:
    """Put a notice into the outbox, once for each cause and `n`; to how many addresses."""
    schedule, bot, settings = subject
    ids = schedule.options.notify.get("channels", settings.options.notify_channels)
    targets = _targets(conn, schedule.project_id, ids)
    if not targets:
        return 0
    message = Message(
        kind="notice",
        title=f"{bot.name}: {report.title}" if report.title else bot.name,
        text=report.body or report.title,
        project=projects.names(conn, {schedule.project_id})[schedule.project_id],
        happened_at=now,
        # Where it is looked at; whoever sends it knows the address of this server.
        url=f"/bots/{bot.id}" if run_id is None else f"/runs/{run_id}",
        notice=NoticePart(report.severity, bot.id, bot.name, schedule.id, report.key, run_id, is_resolved),
    )
    drafts = [
        Draft(
            project_id=schedule.project_id,
            idem_key=f"{cause}:notice:{n}:{target}",
            incident_id=None,
            heartbeat_id=None,
            target=target,
            channel_id=channel_id,
            dest=address,
            message=message,
            priority=PRIORITY_LATER,
            order_seq=outbox.next_order_seq(conn, f"{target}:{schedule.id}"),
            order_subject=schedule.id,
        )
        for target, channel_id, address in targets
    ]
    outbox.enqueue(conn, drafts, now)
    return len(drafts)


def _targets(conn: Connection, project_id: str, ids: Sequence[str]) -> list[tuple[str, str, str | None]]:
    found = []
    for channel_id, entry in channels.directory(conn, project_id, ids).items():
        addresses: Sequence[str | None] = entry.addresses or (None,)
        found += [(target_key(channel_id, address), channel_id, address) for address in addresses]
    return found


def subject_of(conn: Connection, schedule: Schedule) -> Subject | None:
    """Whom notices of a schedule are about; None when its bot is gone."""
    bot = store.bots_by_id(conn, [schedule.bot_id]).get(schedule.bot_id)
    return None if bot is None else Subject(schedule, bot, store.settings_of(conn, schedule.project_id))
