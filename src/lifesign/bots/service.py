"""Bots: made, changed, removed. Each in the caller's transaction."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from lifesign.bots import activity, bodies, schedules, store, tools, watching
from lifesign.bots.asking import BOTS_SECRETS, Ask, changed, get_bot
from lifesign.bots.bodies import Fields
from lifesign.bots.project_settings import is_unsafe, labels_by_server, require_plan
from lifesign.bots.records import Bot, BotOptions, ProjectSettings
from lifesign.bots.rules import Trifecta
from lifesign.channels import config as channel_config
from lifesign.channels.secrets import SecretBox
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id

_RUNNER_SECRET = "runner.secret"  # noqa: S105 - the name of a place


def create_bot(conn: Connection, ask: Ask, fields: Fields) -> Bot:
    """A new bot. Raises MissingField, InvalidField, PlanForbids."""
    settings = store.settings_of(conn, ask.project_id)
    if fields.flag("heartbeat"):
        require_plan(settings)
    own, extra = bodies.bot_of(fields, ask.guard, is_new=True)
    bot = Bot(
        number=0,
        id=new_id("bot", ask.now),
        project_id=ask.project_id,
        name="",
        model=settings.options.default_model,
        instruction=None,
        max_reply_tokens=None,
        top=None,
        is_online=True,
        is_scheduling=False,
        options=BotOptions(),
        reset_at=None,
        created_at=ask.now,
        updated_at=ask.now,
    )
    bot = replace(bot, **own)
    return store.insert_bot(conn, replace(bot, options=_bot_options(ask, settings, bot, extra, fields)))


def update_bot(conn: Connection, ask: Ask, ref: str | int, fields: Fields) -> tuple[Bot, Bot]:
    """A bot before and after its change. Raises BotNotFound, PlanForbids, InvalidField."""
    before = get_bot(conn, ask.project_id, ref, lock=True)
    settings = store.settings_of(conn, ask.project_id)
    if fields.flag("heartbeat") and not before.is_scheduling:
        require_plan(settings)
    own, extra = bodies.bot_of(fields, ask.guard, is_new=False)
    after = replace(before, **own)
    after = replace(after, options=_bot_options(ask, settings, after, extra, fields))
    if after == before:
        return before, before
    after = replace(after, updated_at=max(ask.now, before.updated_at))
    store.save_bot(conn, after)
    activity.edited(conn, after.project_id, after.id, ask.now)
    is_switched = after.is_scheduling != before.is_scheduling
    if is_switched or after.name != before.name:
        schedules.carry_over(conn, ask, after, is_switched=is_switched)
    return before, after


def reset_bot(conn: Connection, ask: Ask, ref: str | int) -> None:
    """Forget what was said before. Raises BotNotFound."""
    bot = get_bot(conn, ask.project_id, ref, lock=True)
    store.save_bot(conn, replace(bot, reset_at=ask.now))


def _bot_options(ask: Ask, settings: ProjectSettings, bot: Bot, extra: Mapping[str, Any], fields: Fields) -> BotOptions:
    told = Fields(fields.raw("lifesign") or {}, within="lifesign")
    if "provider" in extra and extra["provider"] != "default":
        known = {each["name"] for each in settings.options.providers} | ask.offers.providers
        if extra["provider"] not in known:
            raise told.refuse("provider", f"unknown provider {extra['provider'][:64]!r}")
    if "runner" in extra:
        extra = {**extra, "runner": _sealed_runner(ask, bot, extra["runner"])}
    options: BotOptions = changed(bot.options, extra)
    labels = labels_by_server(settings, ask.offers)
    for name in ("tools", "approval_tools"):
        for tool in extra.get(name, ()):
            parts = tools.parted(tool)
            if parts is not None and parts[0] not in labels:
                raise told.refuse(name, f"unknown server of tools {parts[0]!r}")
    is_acknowledged = bool(told.flag("acknowledge_trifecta")) and ask.is_admin
    if is_acknowledged or {"tools", "approval_tools"} & set(extra):
        options = changed(options, {"has_acknowledged": is_acknowledged})
        if is_unsafe(options, options.tools, labels):
            raise Trifecta("lifesign.tools")
    return options


def _sealed_runner(ask: Ask, bot: Bot, runner: Mapping[str, Any]) -> dict[str, Any]:
    """A runner as stored. Without a secret it keeps the one of the same address, else one is made."""
    if runner["kind"] != "http":
        return dict(runner)
    old = bot.options.runner
    if "secret" not in runner and old.get("url") == runner["url"] and "secret" in old:
        return {**runner, "secret": old["secret"]}
    secret = runner.get("secret") or channel_config.generate_webhook_secret()
    return {**runner, "secret": ask.box.seal(secret, bot.id, _RUNNER_SECRET, kind=BOTS_SECRETS)}


def runner_secret(box: SecretBox, bot: Bot) -> str:
    """What requests to a bot's runner are signed with. Raises SecretUnreadable."""
    return box.open(bot.options.runner["secret"], bot.id, _RUNNER_SECRET, kind=BOTS_SECRETS)


def delete_bot(conn: Connection, ask: Ask, ref: str | int) -> str:
    """Remove a bot and all that was kept of it; its id. Raises BotNotFound."""
    bot = get_bot(conn, ask.project_id, ref, lock=True)
    # Locked, or a run that somebody starts meanwhile would outlive its bot.
    for schedule in store.lock_schedules_of(conn, bot.id):
        watching.remove(conn, ask.watchers, bot, schedule, ask.now)
    store.delete_bot(conn, bot.id)
    activity.edited(conn, bot.project_id, bot.id, ask.now)
    # Whoever does one of its runs notices that the run is gone.
    wake_after_commit(conn, "bots_run")
    return bot.id
