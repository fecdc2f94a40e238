"""HTTP of channels: one form per type, a test that shows what the provider said, and how delivery went."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, cast, get_args

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign.channels import bodies, schemas, trial
from lifesign.channels import config as configs
from lifesign.channels import service as channels
from lifesign.channels.delivery import courier_of
from lifesign.channels.limits import Limits
from lifesign.channels.rules import ChannelType, TooManyTests, User
from lifesign.channels.service import Channel, ChannelUsers, DayOfDelivery, DeliveryLog, Kit
from lifesign.channels.trial import Trial
from lifesign.clock import EpochMs, from_datetime, to_datetime
from lifesign.faults import InvalidInput, invalid
from lifesign.heartbeats import service as heartbeats
from lifesign.http.context import context_of
from lifesign.http.paging import is_id
from lifesign.http.validation import validate
from lifesign.incidents import fallback, policies
from lifesign.web import channel_forms, charts
from lifesign.web.access import Form, form_for, person_for, person_of
from lifesign.web.channel_forms import TYPES
from lifesign.web.charts import Chart
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import Person

router = APIRouter(include_in_schema=False)

_ROWS = 50
_MESSAGES = 20
_DAYS = 7
_LOOKS: Mapping[str, str] = {"delivered": "alive", "given up": "firing"}
_ENDS: Mapping[str, str] = {"sent": "delivered", "dead": "given up"}
_KINDS: tuple[ChannelType, ...] = get_args(ChannelType)
_is_channel = is_id("ch")


class Delivered(NamedTuple):
    """How the messages of the last days ended."""

    sent: int
    dead: int

    @property
    def words(self) -> str:
        """In a few words, without a share of nothing."""
        total = self.sent + self.dead
        if not total:
            return "no messages"
        # Rounded down: only what never failed is 100 %.
        return f"{self.sent * 1000 // total / 10:g} % of {total}"


def _looks(channel: Channel, delivered: Delivered) -> tuple[str, str]:
    if channel.broken_reason is not None:
        return "firing", "broken"
    if delivered.sent:
        return "alive", "working"
    return ("late", "failing") if delivered.dead else ("idle unseen-yet", "unused")


class Row(NamedTuple):
    """A channel as the list shows it."""

    channel: Channel
    title: str
    target: str
    delivered: Delivered
    look: str
    word: str


@router.get("/channels")
async def show_all(request: Request) -> Response:
    """Every channel, and how delivery through it went lately."""
    person = await person_of(request)
    context = context_of(request)
    after = request.query_params.get("after", "")
    rows, has_more = await context.db.read(
        _rows,
        person.shown.project_id,
        courier_of(request).kit,
        since=_first_day(context.now()),
        after=after if _is_channel(after) else None,
    )
    return page(request, "channels", person, section="/channels", rows=rows, has_more=has_more, days=_DAYS)


def _first_day(now: EpochMs) -> EpochMs:
    today = to_datetime(now).replace(hour=0, minute=0, second=0, microsecond=0)
    return from_datetime(today - timedelta(days=_DAYS - 1))


def _rows(conn: Connection, project_id: str, kit: Kit, *, since: EpochMs, after: str | None) -> tuple[list[Row], bool]:
    found = channels.list_channels(conn, project_id, limit=_ROWS + 1, after=after)
    shown = found[:_ROWS]
    days = channels.deliveries_by_day(conn, [each.id for each in shown], since)
    totals = {each.id: _total([day for day in days if day.channel_id == each.id]) for each in shown}
    rows = [
        Row(each, TYPES[each.type].title, _target(each, kit), totals[each.id], *_looks(each, totals[each.id]))
        for each in shown
    ]
    return rows, len(found) > _ROWS


def _target(channel: Channel, kit: Kit) -> str:
    return channel_forms.target_of(channel.type, schemas.shown(channel, kit)["config"])


def _total(days: Sequence[DayOfDelivery]) -> Delivered:
    return Delivered(*(sum(each.messages for each in days if each.status == status) for status in ("sent", "dead")))


# Making and changing ------------------------------------------------------------------------------------------------
@router.get("/channels/new")
async def show_new(request: Request) -> Response:
    """Which types there are, or the form of the one that was chosen."""
    person = await person_for(request, "channels:write")
    kind = _kind(request.query_params.get("type", ""))
    if kind is None:
        return page(request, "channel_types", person, section="/channels", types=TYPES)
    return _form_page(request, person, kind, {}, {})


@router.post("/channels/new")
async def make(request: Request) -> Response:
    """Make a channel. A secret that is made for it is shown in this answer only."""
    person, form = await form_for(request, "channels:write")
    kind = _kind(form.get("type"))
    if kind is None:
        raise invalid("type", f"must be one of {', '.join(_KINDS)}")
    context, kit = context_of(request), courier_of(request).kit
    try:
        values = {"name": form.get("name"), "type": kind, "config": channel_forms.config_of(kind, form.fields)}
        body = validate(bodies.NewChannel, values, secret=["config"])
        channel, made_secret = await context.db.write(
            channels.create_channel,
            kit,
            person.shown.project_id,
            name=body.name,
            channel_type=kind,
            config=configs.validate(kind, body.config, kit.guard),
            now=context.now(),
        )
    except InvalidInput as error:
        return _form_page(request, person, kind, form.fields, channel_forms.faults_of(error, kind))
    if made_secret is not None:
        return await _page_of(request, person, channel.id, made_secret=made_secret)
    return to(f"/channels/{channel.id}")


@router.get("/channels/{channel_id}/edit")
async def show_edit(request: Request, channel_id: str) -> Response:
    """The form that changes a channel; its secrets are masked."""
    person = await person_for(request, "channels:write")
    channel: Channel = await context_of(request).db.read(channels.get_channel, person.shown.project_id, channel_id)
    masked = schemas.shown(channel, courier_of(request).kit)["config"]
    typed = channel_forms.fields_of(channel.type, masked) | {"name": channel.name}
    return _form_page(request, person, channel.type, typed, {}, channel=channel)


@router.post("/channels/{channel_id}/edit")
async def change(request: Request, channel_id: str) -> Response:
    """Change a channel; a mask that was left alone keeps the secret it stands for."""
    person, form = await form_for(request, "channels:write")
    context, kit = context_of(request), courier_of(request).kit
    channel: Channel = await context.db.read(channels.get_channel, person.shown.project_id, channel_id)
    try:
        values = {"name": form.get("name"), "config": channel_forms.config_of(channel.type, form.fields)}
        body = validate(bodies.ChannelChanges, values, secret=["config"])
        _, made_secret = await context.db.write(
            channels.update_channel,
            kit,
            person.shown.project_id,
            channel.id,
            name=body.name,
            channel_type=None,
            config=body.config,
            now=context.now(),
        )
    except InvalidInput as error:
        faults = channel_forms.faults_of(error, channel.type)
        return _form_page(request, person, channel.type, form.fields, faults, channel=channel)
    if made_secret is not None:
        return await _page_of(request, person, channel.id, made_secret=made_secret)
    return to(f"/channels/{channel.id}")


def _kind(text: str) -> ChannelType | None:
    return next((each for each in _KINDS if each == text), None)


def _form_page(
    request: Request,
    person: Person,
    kind: ChannelType,
    typed: Mapping[str, str],
    faults: Mapping[str, str],
    *,
    channel: Channel | None = None,
) -> Response:
    return page(
        request,
        "channel_form",
        person,
        400 if faults else 200,
        section="/channels",
        kind=kind,
        described=TYPES[kind],
        typed=typed,
        faults=faults,
        channel=channel,
    )


# Looking ------------------------------------------------------------------------------------------------------------
class Seen(NamedTuple):
    """What the page of a channel shows. config: its secrets masked."""

    channel: Channel
    config: Mapping[str, Any]
    days: Sequence[DayOfDelivery]
    log: DeliveryLog
    users: Sequence[User]


@router.get("/channels/{channel_id}")
async def show(request: Request, channel_id: str) -> Response:
    """One channel: where it goes, whether it works, how delivery went, and who uses it."""
    person = await person_of(request)
    return await _page_of(request, person, channel_id)


async def _page_of(
    request: Request,
    person: Person,
    channel_id: str,
    *,
    made_secret: str | None = None,
    tried: Trial | None = None,
    trouble: str = "",
) -> Response:
    context = context_of(request)
    now = context.now()
    seen: Seen = await context.db.read(
        _seen,
        person.shown.project_id,
        channel_id,
        courier_of(request).kit,
        since=_first_day(now),
    )
    delivered = _total(seen.days)
    look, word = _looks(seen.channel, delivered)
    return page(
        request,
        "channel",
        person,
        section="/channels",
        seen=seen,
        each=seen.channel,
        described=TYPES[seen.channel.type],
        fields=channel_forms.fields_of(seen.channel.type, seen.config),
        look=look,
        word=word,
        delivered=delivered,
        chart=_chart(seen.days, now),
        made_secret=made_secret,
        tried=tried,
        trouble=trouble,
        may_change=person.caller.allows("channels:write"),
        days=_DAYS,
    )


def _seen(conn: Connection, project_id: str, channel_id: str, kit: Kit, *, since: EpochMs) -> Seen:
    channel = channels.get_channel(conn, project_id, channel_id)
    return Seen(
        channel,
        schemas.shown(channel, kit)["config"],
        channels.deliveries_by_day(conn, [channel.id], since),
        channels.latest_of_channel(conn, project_id, channel.id, _MESSAGES),
        _users(conn, project_id, channel.id),
    )


def _users(conn: Connection, project_id: str, channel_id: str) -> list[User]:
    found = [User("policy", *each) for each in policies.names_naming_channel(conn, project_id, channel_id)]
    found += [User("heartbeat", *each) for each in heartbeats.names_using_channel(conn, project_id, channel_id)]
    if fallback.fallback_channel(conn, project_id) == channel_id:
        found.append(User("settings", project_id, "fallback channel of the project"))
    return found


def _chart(days: Sequence[DayOfDelivery], now: EpochMs) -> Chart:
    first = to_datetime(_first_day(now))
    columns = []
    for number in range(_DAYS):
        day = first + timedelta(days=number)
        parts = {_ENDS[each.status]: each.messages for each in days if each.day == from_datetime(day)}
        columns.append((f"{day:%a %d %b}", parts))
    return charts.bars(columns, _LOOKS, f"Messages of the last {_DAYS} days (UTC): {_total(days).words}")


# Doing --------------------------------------------------------------------------------------------------------------
@router.post("/channels/{channel_id}/test")
async def test(request: Request, channel_id: str) -> Response:
    """Send a test message, and show what the provider said."""
    person, _ = await form_for(request, "channels:write")
    try:
        tried = await trial.run(
            courier_of(request),
            person.shown.project_id,
            channel_id,
            node_id=request.app.state.node_id,
            limits=Limits.of(context_of(request).settings),
        )
    except TooManyTests as error:
        trouble = f"This channel was tested too often: try again in {-(-error.retry_after_ms // 1000)} s"
        return await _page_of(request, person, channel_id, trouble=trouble)
    if tried.wait_ms is not None:
        trouble = f"The provider's limit is reached, so nothing was sent: try again in {-(-tried.wait_ms // 1000)} s"
        return await _page_of(request, person, channel_id, trouble=trouble)
    return await _page_of(request, person, channel_id, tried=tried)


@router.post("/channels/{channel_id}/delete")
async def delete(request: Request, channel_id: str) -> Response:
    """Delete a channel, when its name was typed; whatever uses it tells it no more."""
    person, form = await form_for(request, "channels:write")
    context = context_of(request)
    channel: Channel = await context.db.read(channels.get_channel, person.shown.project_id, channel_id)
    _require_name(form, channel.name)
    await context.db.write(
        channels.delete_channel,
        person.shown.project_id,
        channel.id,
        cast("list[ChannelUsers]", request.app.state.channel_users),
        force=True,
        key_id=person.user_id,
        now=context.now(),
    )
    return to("/channels")


def _require_name(form: Form, name: str) -> None:
    if form.get("name") != name.strip():
        raise invalid("name", "is not the name of this channel, so nothing was deleted")
