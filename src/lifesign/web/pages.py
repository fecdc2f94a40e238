"""How pages are made: the templates, the headers they all have, and what an error looks like to a browser."""

import hashlib
from collections.abc import Mapping
from contextvars import ContextVar
from email.utils import format_datetime
from importlib.resources import files
from typing import Any
from zoneinfo import ZoneInfo

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from lifesign.clock import EpochMs, rfc3339, to_datetime
from lifesign.http.context import context_of
from lifesign.web.access import banner_for, theme_of, zone_of
from lifesign.web.forms import duration_of
from lifesign.web.rules import Person

HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; "
    "object-src 'none'",
    # To ourselves in full, or browsers would say `null` of where a form comes from; to others nothing.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cache-Control": "no-store",
}
STATIC: Mapping[str, tuple[bytes, str]] = {
    "style.css": (files("lifesign.web").joinpath("static/style.css").read_bytes(), "text/css"),
    "app.js": (files("lifesign.web").joinpath("static/app.js").read_bytes(), "text/javascript"),
    "icon.svg": (files("lifesign.web").joinpath("static/icon.svg").read_bytes(), "image/svg+xml"),
}
_DIGEST = hashlib.sha256(b"".join(content for content, _ in STATIC.values())).hexdigest()[:12]

# Of the page that is made at this moment: filters know nothing of a request.
_zone: ContextVar[str] = ContextVar("zone", default="")

_templates = jinja2.Environment(
    loader=jinja2.PackageLoader("lifesign.web", "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _instant(at: EpochMs) -> str:
    return rfc3339(at)


def readable(at: EpochMs, zone: str) -> str:
    """The minute in a zone; empty: UTC."""
    return to_datetime(at).astimezone(ZoneInfo(zone or "UTC")).strftime("%Y-%m-%d %H:%M %Z")


def _readable(at: EpochMs) -> str:
    """What stands there where no script tells how long ago it was."""
    return readable(at, _zone.get())


def _exact(at: EpochMs) -> str:
    return _in_zone(at, _zone.get() or "UTC")


def _in_zone(at: EpochMs, zone: str) -> str:
    return to_datetime(at).astimezone(ZoneInfo(zone)).strftime("%a %Y-%m-%d %H:%M:%S %Z")


def _rfc822(at: EpochMs) -> str:
    return format_datetime(to_datetime(at), usegmt=True)


_templates.filters |= {"rfc822": _rfc822, "exact": _exact}
_templates.filters |= {
    "instant": _instant,
    "readable": _readable,
    "exact": _exact,
    "in_zone": _in_zone,
    "duration": duration_of,
}

# What the header leads to, in this order; a page names its own entry as `section`.
NAVIGATION = (
    ("/", "Overview"),
    ("/incidents", "Incidents"),
    ("/policies", "Policies"),
    ("/channels", "Channels"),
    ("/systems", "Systems"),
    ("/bots", "Bots"),
    ("/telemetry", "Telemetry"),
    ("/diagnosis", "Diagnosis"),
    ("/vitals", "Vitals"),
    ("/usage", "Usage"),
    ("/keys", "Keys"),
    ("/settings", "Settings"),
    ("/audit", "Audit"),
)
_templates.globals |= {"static": f"/static/{_DIGEST}", "navigation": NAVIGATION}


# Any: what the templates ask for.
def page(request: Request, name: str, person: Person | None, status: int = 200, **values: Any) -> HTMLResponse:
    """The page that the template `name` makes."""
    zone = zone_of(request)
    kept = _zone.set(zone)
    try:
        html = _templates.get_template(f"{name}.html.j2").render(
            person=person,
            theme=theme_of(request),
            shown_zone=zone,
            now=context_of(request).now(),
            banner=banner_for(request),
            here=request.url.path if request.method == "GET" else "/",
            **values,
        )
    finally:
        _zone.reset(kept)
    return HTMLResponse(html, status, headers=HEADERS)


# Any: what the templates ask for.
def feed(request: Request, name: str, person: None, **values: Any) -> Response:  # noqa: ARG001 - as `page`
    """The document of XML that the template `name` makes; for everybody."""
    text = _templates.get_template(f"{name}.xml.j2").render(now=context_of(request).now(), **values)
    return Response(text, headers=HEADERS, media_type="application/rss+xml")


def error_page(theme: str, status: int, message: str, request_id: str, headers: Mapping[str, str]) -> HTMLResponse:
    """What went wrong, to somebody who looks at a page."""
    html = _templates.get_template("error.html.j2").render(
        person=None,
        theme=theme,
        title=_TITLES.get(status, "This did not work"),
        message=_MESSAGES.get(status, message),
        status=status,
        request_id=request_id,
    )
    return HTMLResponse(html, status, headers={**HEADERS, **headers})


_TITLES = {403: "Not allowed", 404: "Nothing here", 429: "Too many tries", 500: "Our fault", 503: "Not now"}
_MESSAGES = {
    404: "There is no page with this address, or what it was about is gone.",
    500: "Something went wrong inside the server. Its log tells what, under the request below.",
}
