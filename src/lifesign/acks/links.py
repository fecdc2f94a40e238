"""HTTP of ack links: GET shows, POST acts. Spec "Channels", section 7."""

from typing import cast
from urllib.parse import parse_qs

import jinja2
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lifesign.acks import rules, service
from lifesign.acks.rules import LINK_DAYS_MS, MAX_MESSAGE_CHARACTERS, Turnstile
from lifesign.acks.service import Seen
from lifesign.channels.acklinks import AckGrant, AckSigner
from lifesign.channels.delivery import courier_of
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.body import read_body
from lifesign.http.context import context_of
from lifesign.incidents.messages import shown_resolution

router = APIRouter(include_in_schema=False)

_MAX_BODY_BYTES = 16_384
_METHODS = ("GET", "HEAD", "POST")
_EVERY_METHOD = [*_METHODS, "PUT", "PATCH", "DELETE", "OPTIONS"]
_HEADERS = {
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "X-Robots-Tag": "noindex",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # No scripts, nothing from elsewhere; the one style sheet stands in the page.
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'",
}
_pages = jinja2.Environment(
    loader=jinja2.PackageLoader("lifesign.acks", "pages"), autoescape=True, undefined=jinja2.StrictUndefined
)


@router.api_route("/a/{token}", methods=_EVERY_METHOD)
async def ack_link(request: Request, token: str) -> Response:
    """Show the incident of a link, or acknowledge it."""
    if request.method not in _METHODS:
        return _page(405, "Method not allowed", headers={"Allow": ", ".join(_METHODS)})
    context = context_of(request)
    wait_ms = _turnstile_of(request).wait_ms(request.client.host if request.client else "", context.now())
    if wait_ms is not None:
        seconds = str(-(-wait_ms // 1000))
        return _page(429, "Too many requests", f"Try again in {seconds} s.", headers={"Retry-After": seconds})
    grant = _signer_of(request).read(token)
    seen = None if grant is None else await context.db.read(service.look, grant)
    if grant is None or seen is None:
        return _page(404, "This link does not work", "It is incomplete, or what it was about is gone.")
    if seen.incident.resolved_at is not None and context.now() - seen.incident.resolved_at > LINK_DAYS_MS:
        return _page(410, "This link is too old", "The incident has been over for more than a week.")
    if request.method == "POST":
        return await _acknowledge(request, grant)
    return _shown(seen)


async def _acknowledge(request: Request, grant: AckGrant) -> Response:
    context = context_of(request)
    fields = parse_qs((await read_body(request, _MAX_BODY_BYTES)).decode("utf-8", "replace"))
    message = "".join(fields.get("message", [])).replace("\x00", "").strip()[:MAX_MESSAGE_CHARACTERS] or None
    await context.db.write(service.acknowledge, grant, None, message, context.now())
    # The same address, whatever became of it: its page tells who closed the incident and when.
    return RedirectResponse(request.url.path, status_code=303, headers=_HEADERS)


def _shown(seen: Seen) -> HTMLResponse:
    incident = seen.incident
    rows = [("Heartbeat", seen.name), ("Down since", _instant(incident.opened_at))]
    if incident.resolved_at is None:
        return _page(200, f"{seen.name} is down", rows=rows, tone="alarm", may_acknowledge=True)
    rows += [("Over since", _instant(incident.resolved_at)), ("Closed by", _closed_by(seen))]
    if incident.ack_message:
        rows.append(("Note", incident.ack_message))
    is_acked = incident.resolved_by == "ack"
    text = f"Acknowledged at {_instant(incident.resolved_at)} by {incident.ack_actor}." if is_acked else ""
    return _page(200, f"{seen.name}: {'acknowledged' if is_acked else 'over'}", text, rows=rows, tone="calm")


def _closed_by(seen: Seen) -> str:
    match shown_resolution(seen.incident.resolved_by or "checkin"):
        case "ack":
            return seen.incident.ack_actor or ""
        case "checkin":
            return "a check-in"
        case "pause":
            return "a pause"
        case "delete":
            return "deletion of the heartbeat"


def _instant(at: EpochMs) -> str:
    return rfc3339(at)


def _page(
    status: int,
    title: str,
    text: str = "",
    *,
    rows: list[tuple[str, str]] | None = None,
    tone: str = "edge",
    may_acknowledge: bool = False,
    headers: dict[str, str] | None = None,
) -> HTMLResponse:
    html = _pages.get_template("ack.html.j2").render(
        title=title,
        text=text,
        rows=rows or [],
        tone=tone,
        may_acknowledge=may_acknowledge,
        max_characters=rules.MAX_MESSAGE_CHARACTERS,
    )
    return HTMLResponse(html, status, headers=_HEADERS | (headers or {}))


def _signer_of(request: Request) -> AckSigner:
    return courier_of(request).kit.acks


def _turnstile_of(request: Request) -> Turnstile:
    return cast("Turnstile", request.app.state.turnstile)
