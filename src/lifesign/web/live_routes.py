"""HTTP of live updates: server-sent events, which tell a page that something it shows has changed."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import cast

import orjson
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from lifesign.http.context import context_of, header_of
from lifesign.web import access, service
from lifesign.web.access import person_of
from lifesign.web.live import Live, News
from lifesign.web.rules import NoProject, Person

router = APIRouter(include_in_schema=False)

# A proxy that closes what is silent for a minute must not see such a minute.
_QUIET_S = 20.0
# So often a stream looks whether its session still counts.
_LOOKS_EVERY = 3
_LONGEST_SEQ = 18
_HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Content-Type-Options": "nosniff"}


@router.get("/events/stream")
async def stream(request: Request) -> Response:
    """Tell what happens in the project that is shown, from the event `since` or `Last-Event-ID` on."""
    person = await person_of(request)
    resumed = (header_of(request, b"last-event-id") or b"").decode("latin-1")
    since = _seq(resumed) if resumed else _seq(request.query_params.get("since", ""))
    return StreamingResponse(_told(request, person, since), media_type="text/event-stream", headers=_HEADERS)


def _seq(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_SEQ else None


async def _told(request: Request, person: Person, since: int | None) -> AsyncIterator[bytes]:
    quiet = 0
    # Whoever lost the connection tries again after a second.
    yield b"retry: 1000\n\n"
    async with aclosing(live_of(request).news(person.shown.project_id, since, quiet_s=_QUIET_S)) as news:
        async for each in news:
            if each is not None:
                yield _message(each)
                continue
            quiet += 1
            if quiet % _LOOKS_EVERY == 0 and not await _is_still(request, person):
                return
            yield b":\n\n"


def _message(news: News) -> bytes:
    kind = "gap" if news.is_gap else "changed" if news.changes else "here"
    changes = sorted({(each.heartbeat_id, each.type) for each in news.changes})
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (news.seq, kind.encode(), orjson.dumps(changes))


async def _is_still(request: Request, person: Person) -> bool:
    context = context_of(request)
    try:
        found = await context.db.read(service.person, request.cookies[access.COOKIE], context.now())
    except NoProject:
        return False
    return found is not None and found.shown == person.shown


def live_of(request: Request) -> Live:
    """What tells the pages of this node."""
    return cast("Live", request.app.state.live)
