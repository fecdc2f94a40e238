"""Whether runs may begin at all: the switch of a project, and that of the whole server."""

from collections.abc import Callable
from dataclasses import replace

from sqlalchemy import Connection

from lifesign.bots import asking, rules, run_store, store, watching
from lifesign.bots.records import ProjectSettings
from lifesign.bots.store import ALL_PROJECTS
from lifesign.bots.watching import Watchers
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit


def is_stopped(settings: ProjectSettings, server: ProjectSettings) -> bool:
    """Whether nothing may run: the project's bots, or those of all projects, are stopped."""
    return settings.stopped_at is not None or server.stopped_at is not None


def server_settings(conn: Connection, *, is_halted: bool) -> ProjectSettings:
    """What holds for all projects. is_halted: this server was started with all bots stopped."""
    return halted(store.settings_of(conn, ALL_PROJECTS), is_halted=is_halted)


def halted(found: ProjectSettings, *, is_halted: bool) -> ProjectSettings:
    """Settings with everything stopped, where this server was started so."""
    return replace(found, stopped_at=EpochMs(0)) if is_halted and found.stopped_at is None else found


def stop(conn: Connection, project_id: str, reason: str | None, *, cancels: bool, now: EpochMs) -> int:
    """Let nothing run any more; how many runs are cancelled. project_id: ALL_PROJECTS for the whole server."""
    settings = store.lock_settings(conn, project_id)
    if settings.stopped_at is None:
        settings = replace(settings, stopped_at=now, stop_reason=reason)
        store.save_settings(conn, settings, now)
    if not cancels:
        return 0
    which = {} if project_id == ALL_PROJECTS else {"project_id": project_id}
    count = run_store.count_open(conn, which)
    run_store.ask_to_cancel(conn, which, "stopped", last_words_until=EpochMs(now + rules.LAST_WORDS_MS))
    wake_after_commit(conn, "bots_run")
    return count


def resume(conn: Connection, project_id: str, now: EpochMs) -> None:
    """Let runs begin again, with the next slot of each schedule."""
    settings = store.lock_settings(conn, project_id)
    if settings.stopped_at is not None:
        store.save_settings(conn, replace(settings, stopped_at=None, stop_reason=None), now)
    wake_after_commit(conn, "bots_claim")


def stop_project(conn: Connection, ask: asking.Ask, reason: str | None, *, cancels: bool) -> int:
    """The same for the project of whoever asks, whose schedules nothing watches meanwhile."""
    count = stop(conn, ask.project_id, reason, cancels=cancels, now=ask.now)
    watching.switch_all(conn, ask.watchers, ask.project_id, ask.now)
    return count


def resume_project(conn: Connection, ask: asking.Ask) -> None:
    """Let runs of the project begin again, and what watches them look again."""
    resume(conn, ask.project_id, ask.now)
    watching.switch_all(conn, ask.watchers, ask.project_id, ask.now)


def stop_server(
    conn: Connection, watchers_of: Callable[[str], Watchers], reason: str | None, *, cancels: bool, now: EpochMs
) -> int:
    """As `stop_project`, for all projects. watchers_of: by project."""
    count = stop(conn, ALL_PROJECTS, reason, cancels=cancels, now=now)
    _switch_everywhere(conn, watchers_of, now)
    return count


def resume_server(conn: Connection, watchers_of: Callable[[str], Watchers], now: EpochMs) -> None:
    """As `resume_project`, for all projects; those that were stopped by themselves stay so."""
    resume(conn, ALL_PROJECTS, now)
    _switch_everywhere(conn, watchers_of, now)


def _switch_everywhere(conn: Connection, watchers_of: Callable[[str], Watchers], now: EpochMs) -> None:
    for project_id in store.watching_projects(conn):
        watching.switch_all(conn, watchers_of(project_id), project_id, now)
