"""Who may only look: no page has anything to press for them, and whatever they send all the same changes nothing."""

import importlib
import pkgutil
import re

from fastapi import APIRouter
from fastapi.routing import APIRoute

from lifesign import web
from tests.bots.asking_runs import scheduled, triggered
from tests.harness import Lifesign
from tests.telemetry.requests import TRACE, USUAL, body_of
from tests.web.browser import Browser, signed_up

# What people do about themselves, signed in or not.
OWN = {
    "/setup/{token}",
    "/signin",
    "/signout",
    "/account/password",
    "/account/sessions/{session_id}/end",
    "/account/project",
    "/theme",
    "/zone",
    # A look at one's own pulse, and a key of another API that everybody may take.
    "/vitals/session",
    "/vitals/keys",
    # For whoever has a key, whether they have an account or not; see `test_dashboard`.
    "/dashboard/signin",
    "/dashboard/signout",
    "/dashboard/recover",
}
# Forms that a viewer finds on pages all the same: they search, or are about the viewer.
_HARMLESS = {
    "/",
    "/systems",
    "/signout",
    "/theme",
    "/zone",
    "/account/project",
    "/account/password",
    "/audit",
    "/vitals/keys",
}
_HARMLESS |= {"/dashboard/signin", "/dashboard/recover"}


def routes() -> list[APIRoute]:
    """Every route of the pages, whichever module has it."""
    modules = [importlib.import_module(f"{web.__name__}.{each.name}") for each in pkgutil.iter_modules(web.__path__)]
    routers = [each.router for each in modules if isinstance(getattr(each, "router", None), APIRouter)]
    return [each for router in routers for each in router.routes if isinstance(each, APIRoute)]


async def objects(lifesign: Lifesign, closed_port: int) -> dict[str, str]:
    """One of everything, by the name that it has in paths of pages."""
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    made = await lifesign.heartbeat("Silent", policy=policy["id"])
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance()
    [incident] = await lifesign.incidents(made["id"])
    system = (await lifesign.ask("POST", "/api/systems", {"name": "db1"}, expect=201))["data"]
    window = {"name": "Always", "schedule": "0 3 * * *", "duration": 3600, "tags": ["none"]}
    announced = await lifesign.ask("POST", "/v1/maintenance", window, expect=201)
    [key] = (await lifesign.ask("GET", "/v1/keys"))["keys"]
    owner = await signed_up(lifesign)
    spans = [USUAL | {"spanId": f"{n:016x}", "status": {"code": 2}} for n in range(1, 20)]
    sent = await lifesign.http.post("/v1/traces", content=body_of(*spans), headers={"Content-Type": "application/json"})
    assert sent.status_code == 202
    packet = (await lifesign.ask("POST", "/v1/runs/diagnose"))["packet"]
    assert packet["issues"]
    made_by_bot = await scheduled(lifesign)
    run = await triggered(lifesign, made_by_bot)
    await owner.get("/settings/status/new")
    await owner.post("/settings/status/new", {"title": "S", "slug": "shown", "members": made["id"], "is_on": "on"})
    found = re.search(r"/settings/status/(sp_\w+)/edit", await owner.get("/settings"))
    assert found is not None
    return {
        "id": TRACE,
        "trace_id": TRACE,
        "record_id": f"rec_{TRACE}{1:016x}",
        "packet_id": packet["packet_id"],
        "kind": "providers",
        "bot_id": made_by_bot["lifesign"]["bot_uuid"],
        "schedule_id": made_by_bot["uuid"],
        "run_id": run["uuid"],
        "status_id": found[1],
        "slug": "shown",
        "key_id": key["id"],
        "measurement_id": "ms_none",
        "window_id": announced["id"],
        "heartbeat_id": made["id"],
        "incident_id": incident["id"],
        "notification_id": incident["notifications"][0]["id"],
        "policy_id": policy["id"],
        "channel_id": hook["id"],
        "system": system["id"],
    }


def filled(path: str, values: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)(?::\w+)?\}", lambda found: values[found[1]], path)


async def everything(lifesign: Lifesign) -> list[object]:
    """What a change would show in."""
    kinds = ("heartbeats", "policies", "channels", "incidents", "notifications", "keys", "maintenance", "settings")
    bots = [f"/v1/bot/{kind}?project_id=default" for kind in ("readall", "settings")]
    [bot] = (await lifesign.ask("GET", bots[0]))["bots"]
    bots += [f"/v1/bot/heartbeat/{kind}?project_id=default&bot_id={bot['id']}" for kind in ("readall", "logs")]
    return [await lifesign.ask("GET", path) for path in (*(f"/v1/{kind}" for kind in kinds), "/api/systems", *bots)]


async def test_every_changing_request_of_a_viewer_is_refused_and_changes_nothing(
    lifesign: Lifesign, closed_port: int
) -> None:
    values = await objects(lifesign, closed_port)
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")
    owner = await signed_up(lifesign)
    before = await everything(lifesign)
    changing = [each.path for each in routes() if "POST" in (each.methods or ()) and each.path not in OWN]
    fields = {"name": "Silent", "seconds": "60", "wait-0": "", "do": "keep", "type": "email"}

    for path in changing:
        await viewer.post(filled(path, values), fields, expect=403)
        await owner.post(filled(path, values), fields | {"csrf": "0" * 64}, expect=403)

    assert await everything(lifesign) == before
    assert len(changing) > 15


async def test_a_viewer_finds_nothing_to_press_on_any_page(lifesign: Lifesign, closed_port: int) -> None:
    values = await objects(lifesign, closed_port)
    viewer = await signed_up(lifesign, "eve@example.org", "viewer")
    pages = [each.path for each in routes() if "GET" in (each.methods or ()) and each.path not in _NOT_PAGES]

    for path in pages:
        if re.search(r"/(new|edit)$", path):
            await viewer.get(filled(path, values), expect=403)
            continue
        assert controls(await viewer.get(filled(path, values))) == [], path
    assert len(pages) > 10


_NOT_PAGES = {
    "/dashboard/sessions/{id:any_text}",
    "/dashboard/traces/{trace_id}",
    "/records/{record_id}",
    "/static/{digest}/{name}",
    "/static/vitals/{digest}/{name}",
    "/setup/{token}",
    "/signin",
    "/signin/oidc",
    "/signin/oidc/callback",
    "/events/stream",
}


def controls(page: str) -> list[str]:
    """What changes something: forms that are sent to be kept, and the ways to them."""
    forms = re.findall(r'<form[^>]*method="post"[^>]*>', page)
    sent = [found[1] if (found := re.search(r'action="([^"]+)"', each)) else each for each in forms]
    ways = re.findall(r'href="([^"]*/(?:new|edit)(?:\?[^"]*)?)"', page)
    ends = re.compile(r"/account/sessions/\w+/end")
    return [each for each in [*sent, *ways] if each not in _HARMLESS and not ends.fullmatch(each)]


async def test_an_owner_finds_what_a_viewer_does_not(lifesign: Lifesign, closed_port: int) -> None:
    values = await objects(lifesign, closed_port)
    owner: Browser = await signed_up(lifesign)

    things = ("heartbeats/{heartbeat_id}", "policies/{policy_id}", "channels/{channel_id}", "systems/{system}")
    for path in (*(f"/{each}" for each in things), "/bots", "/bots/{bot_id}", "/runs/{run_id}"):
        assert controls(await owner.get(filled(path, values))) != []
