"""Badges, and the metrics that Prometheus scrapes: what anybody with the address may see of a project."""

import asyncio
import base64
import hashlib
import hmac
import re
import uuid
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple, cast
from urllib.parse import quote
from xml.sax.saxutils import escape

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from lifesign.auth.rules import Caller, Unauthorized
from lifesign.auth.service import Keyring
from lifesign.clock import EpochMs
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.answers import json_answer
from lifesign.http.context import context_of, header_of
from lifesign.pings import checks, schemas
from lifesign.pings.rules import CheckRefused

BADGES_INFO = "lifesign/badges"
_FORMATS = ("svg", "json", "shields")
_HEADERS = {"Cache-Control": "no-cache", "Access-Control-Allow-Origin": "*"}
_PREFLIGHT = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, OPTIONS",
    "Access-Control-Allow-Headers": "X-Api-Key",
    "Access-Control-Max-Age": "600",
}
_SIGNATURE_CHARACTERS = 8
_TWO_STATES = "-2"
State = Literal["up", "late", "down"]
_COLORS: dict[State, tuple[str, str]] = {
    "up": ("success", "#4c1"),
    "late": ("important", "#fe7d37"),
    "down": ("critical", "#e05d44"),
}
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def is_equal(one: str, other: str) -> bool:
    """Whether two secrets are the same; takes as long whatever they are."""
    return hmac.compare_digest(one.encode(), other.encode())


def uuid_of(project_id: str) -> str:
    """The UUID that an id of ours is made of."""
    return str(uuid.UUID(hex=project_id.rpartition("_")[2]))


# Signing ------------------------------------------------------------------------------------------------------------
class Signer:
    """Signs the addresses of badges of tags: whoever has one sees that badge and no other."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = keys

    def signature(self, key: bytes, badge_key: str, tag: str | None) -> str:
        """The first characters of the HMAC of what the address shows."""
        told = f"{badge_key}/{'*' if tag is None else tag}".encode()
        digest = hmac.new(key, told, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode()[:_SIGNATURE_CHARACTERS]

    def is_signed(self, signature: str, badge_key: str, tag: str | None) -> bool:
        """Whether a signature is one of ours, by the present secret or one before it."""
        return any(is_equal(signature, self.signature(key, badge_key, tag)) for key in self._keys)

    def urls(self, base: str, project_id: str, tag: str | None) -> dict[str, str]:
        """The addresses of a badge by format; those that end with 3 show three states."""
        badge_key = uuid_of(project_id)
        signature = self.signature(self._keys[0], badge_key, tag)
        end = "" if tag is None else f"/{quote(tag, safe='')}"
        urls: dict[str, str] = {}
        for name in _FORMATS:
            urls[name] = f"{base}/badge/{badge_key}/{signature}{_TWO_STATES}{end}.{name}"
            urls[f"{name}3"] = f"{base}/badge/{badge_key}/{signature}{end}.{name}"
        return urls


def signer_of(request: Request) -> Signer:
    """Who signs the badges of this node."""
    return cast("Signer", request.app.state.badge_signer)


# Drawing ------------------------------------------------------------------------------------------------------------
class Counts(NamedTuple):
    """How many checks there are, and how many of them are late and down."""

    total: int
    grace: int
    down: int

    @classmethod
    def of(cls, checks: Iterable[Heartbeat], now: EpochMs) -> "Counts":
        """Count them. New and paused ones count as up."""
        states = [schemas.status_of(each, now) for each in checks]
        return cls(len(states), states.count("grace"), states.count("down"))

    def state(self, *, has_three: bool) -> State:
        """The worst of them."""
        if self.down:
            return "down"
        return "late" if self.grace and has_three else "up"


def badge(name: str, counts: Counts, label: str, *, has_three: bool) -> Response:
    """A badge in one of the formats."""
    state = counts.state(has_three=has_three)
    if name == "json":
        body: dict[str, Any] = {"status": state, **counts._asdict()}
        return json_answer(body, 200, _HEADERS)
    if name == "shields":
        shown = {"schemaVersion": 1, "label": label, "message": state, "color": _COLORS[state][0]}
        return json_answer(shown, 200, _HEADERS)
    return Response(svg(label, state), headers=_HEADERS, media_type="image/svg+xml")


def svg(label: str, state: State) -> str:
    """A flat badge: the label on grey, the state on its colour. Widths are those of 11 px Verdana, nearly."""
    left, right = 7 * len(label) + 10, 7 * len(state) + 10
    width = left + right
    told = escape(label, {'"': "&quot;"})
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img" aria-label="{told}: {state}">'
        f"<title>{told}: {state}</title>"
        f'<rect width="{left}" height="20" fill="#555"/>'
        f'<rect x="{left}" width="{right}" height="20" fill="{_COLORS[state][1]}"/>'
        '<g fill="#fff" text-anchor="middle" font-family="Verdana,Geneva,DejaVu Sans,sans-serif" font-size="11">'
        f'<text x="{left / 2}" y="14">{told}</text><text x="{left + right / 2}" y="14">{state}</text></g></svg>'
    )


# Badges over HTTP ---------------------------------------------------------------------------------------------------
async def _check_badge(request: Request) -> Response:
    states, rest = request.path_params["states"], request.path_params["rest"]
    badge_id, _, name = rest.rpartition(".")
    if states not in {"2", "3"} or name not in _FORMATS or not _UUID.fullmatch(badge_id):
        return _nothing()
    context = context_of(request)
    found = await context.db.read(heartbeats.by_badge_id, badge_id)
    if found is None:
        return _nothing()
    label = found.name or found.ping_id or ""
    return badge(name, Counts.of([found], context.now()), label, has_three=states == "3")


def _nothing() -> Response:
    return PlainTextResponse("not found", 404, _HEADERS)


async def _tag_badge(request: Request) -> Response:
    badge_key, signed = request.path_params["key"], request.path_params["signed"]
    end, _, name = request.path_params["rest"].rpartition(".") if "rest" in request.path_params else ("", "", "")
    tag: str | None = end
    if "rest" not in request.path_params:
        signed, _, name = signed.rpartition(".")
        tag = None
    has_three = not signed.endswith(_TWO_STATES)
    signature = signed.removesuffix(_TWO_STATES)
    if name not in _FORMATS or not _UUID.fullmatch(badge_key):
        return _nothing()
    if not signer_of(request).is_signed(signature, badge_key, tag):
        return _nothing()
    context = context_of(request)
    project_id = f"prj_{badge_key.replace('-', '')}"
    rows = await context.db.read(checks.all_of, project_id, tags=[] if tag is None else [tag])
    label = context.settings.master_badge_label if tag is None else tag
    return badge(name, Counts.of(rows, context.now()), label, has_three=has_three)


async def _preflight(request: Request) -> Response:
    """What a browser asks before it shows a badge on a page of another site."""
    del request
    return Response(status_code=204, headers=_PREFLIGHT)


# Prometheus ---------------------------------------------------------------------------------------------------------
async def _metrics(request: Request) -> Response:
    project = request.path_params["project"]
    try:
        project_id = f"prj_{uuid.UUID(project).hex}"
    except ValueError:
        return PlainTextResponse("malformed project id", 400)
    try:
        caller = await _reader(request)
    except (Unauthorized, CheckRefused):
        return PlainTextResponse("missing or wrong key", 401)
    if caller.project_id != project_id:
        return PlainTextResponse("forbidden", 403)
    context = context_of(request)
    rows = await context.db.read(checks.all_of, project_id)
    text = await asyncio.to_thread(metrics_text, rows, context.now())
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def _reader(request: Request) -> Caller:
    """Whose key it is: one that may only read where it stands in the URL. Raises Unauthorized, CheckRefused."""
    keyring = cast("Keyring", request.app.state.keyring)
    key = request.path_params.get("key", "")
    header = b"Bearer " + key.encode() if key else header_of(request, b"authorization")
    caller = await keyring.caller(header)
    may_write = any(scope.endswith(":write") or scope == "*" for scope in caller.scopes)
    if not caller.allows("heartbeats:read") or (key and may_write):
        raise CheckRefused(401, "wrong api key")
    return caller


_LABELS = ("name", "tags", "unique_key")


class _State(Collector):
    """The state of checks as a collector: quicker by half than a gauge for each of them."""

    def __init__(self, checks: Sequence[Heartbeat], now: EpochMs) -> None:
        self._checks = checks
        self._now = now

    def collect(self) -> Iterable[GaugeMetricFamily]:
        up = GaugeMetricFamily("hc_check_up", "Whether the check is up (1) or down (0).", labels=_LABELS)
        started = GaugeMetricFamily("hc_check_started", "Whether a run is going on (1) or not (0).", labels=_LABELS)
        grace = GaugeMetricFamily("hc_check_grace", "Whether the check is late, within its grace.", labels=_LABELS)
        paused = GaugeMetricFamily("hc_check_paused", "Whether the check is paused (1) or not (0).", labels=_LABELS)
        tag_up = GaugeMetricFamily("hc_tag_up", "Whether every check with the tag is up.", labels=["tag"])
        tags: dict[str, bool] = {}
        down = 0
        for each in self._checks:
            state = schemas.status_of(each, self._now)
            names = (each.name, " ".join(each.tags), heartbeats.unique_key(each.ping_id or ""))
            up.add_metric(names, state != "down")
            started.add_metric(names, each.ping_run_id is not None)
            grace.add_metric(names, state == "grace")
            paused.add_metric(names, state == "paused")
            down += state == "down"
            for tag in each.tags:
                tags[tag] = tags.get(tag, True) and state != "down"
        for tag, is_up in tags.items():
            tag_up.add_metric([tag], is_up)
        yield from (up, started, grace, paused, tag_up)
        yield GaugeMetricFamily("hc_checks_total", "How many checks there are.", value=len(self._checks))
        yield GaugeMetricFamily("hc_checks_down_total", "How many checks are down.", value=down)


def metrics_text(checks: Sequence[Heartbeat], now: EpochMs) -> bytes:
    """The state of a project in Prometheus' text format, all of one moment."""
    registry = CollectorRegistry()
    registry.register(_State(checks, now))
    return generate_latest(registry)


routes = [
    Route("/b/{states}/{rest:path}", _check_badge, methods=["GET"]),
    Route("/badge/{key}/{signed}", _tag_badge, methods=["GET"]),
    Route("/badge/{key}/{signed}/{rest:path}", _tag_badge, methods=["GET"]),
    *(
        Route(path, _preflight, methods=["OPTIONS"])
        for path in ("/b/{states}/{rest:path}", "/badge/{key}/{signed}", "/badge/{key}/{signed}/{rest:path}")
    ),
    # The second is the address of old, which stands in scrape configurations.
    Route("/projects/{project}/metrics/{key}", _metrics, methods=["GET"]),
    Route("/projects/{project}/checks/metrics/{key}", _metrics, methods=["GET"]),
    Route("/projects/{project}/metrics/", _metrics, methods=["GET"]),
]
