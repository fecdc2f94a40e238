"""`lifesign demo --web`: a server with a month behind it, to look around in.

Nothing is made up that the server would not have done itself: it runs through the month on a clock that is turned by
hand, and jobs, machines, agents and bots report to it over HTTP all the while. Then it goes on with the real time.
"""

import base64
import contextlib
import http.cookiejar
import http.server
import itertools
import json
import random
import re
import tempfile
import time
import urllib.parse
import urllib.request
import webbrowser
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from lifesign.cli.checkin import Proof, check_in
from lifesign.cli.demo import Running, Stage, hook_sink, interruptible, listening, mail_sink, new_key, running
from lifesign.cli.errors import CommandFailed, Refused
from lifesign.cli.remote import Api, Call, Send, encoded, over_kept_network, understood
from lifesign.cli.values import Json
from lifesign.clock import EpochMs, SystemClock, parse_timestamp, rfc3339

EMAIL, PASSWORD = "demo@example.org", "granite otter lantern 52"
_HOUR_S, _DAY_HOURS = 3600, 24
_EARLY_S = 300
_LIVE_S = 5
_QUIET_TURN = 24
_TOLD_DAYS = 3
_SPANS_DAYS = 3
_SEED = 7


class Job(NamedTuple):
    """A heartbeat of the demo. hours: at which it checks in, UTC; None: every hour.

    outages: from when and until when it stays silent, in hours before the demo is shown; the end does not count.
    ended: how the incident of an outage ends.
    """

    name: str
    namespace: str
    tags: tuple[str, ...]
    timing: Mapping[str, Json]
    policy: str
    hours: tuple[int, ...] | None = None
    outages: tuple[tuple[int, int], ...] = ()
    ended: str = "checkin"


_AT_2: Final = {"mode": "scheduled", "schedule": "0 2 * * *", "grace": 1800}
_AT_4: Final = {"mode": "scheduled", "schedule": "0 4 * * *", "grace": 3600}
_QUARTERS: Final = {"mode": "scheduled", "schedule": "0 */6 * * *", "grace": 1800}
_STILL: Final = -(10**6)
"""Until when an outage lasts that nobody ends."""
_HOURLY: Final = {"mode": "recurring", "interval": _HOUR_S, "grace": 600}
JOBS: Final = (
    Job("Nightly backup", "data", ("critical",), _AT_2, "page", hours=(2,), outages=((13 * 24, 12 * 24),)),
    Job(
        "Export of orders",
        "shop",
        ("critical", "billing"),
        _HOURLY,
        "page",
        outages=((9 * 24 + 5, 9 * 24 + 2), (52, 50)),
    ),
    Job("Invoices", "shop", ("billing",), _HOURLY, "page", outages=((4, _STILL),)),
    Job("Search index", "shop", (), _HOURLY, "tell", outages=((20 * 24, 19 * 24 + 12), (30, 27)), ended="ack"),
    Job("Mail queue", "mail", (), _HOURLY, "tell"),
    Job("Certificates", "edge", ("tls",), _AT_4, "tell", hours=(4,)),
    Job("Warehouse sync", "data", (), _QUARTERS, "tell", hours=(0, 6, 12, 18)),
)
SYSTEMS: Final = ("web1", "web2", "db1", "db2", "cache1", "build1")
_DEAD: Final = "build1"
_LIVE: Final = ("Payments", "Sign-in", "Webhooks out")


@dataclass(slots=True)
class World:
    """The server, what was made on it, and the chance that everything goes by."""

    api: Api
    send: Send
    anonymous: Send
    chance: random.Random = field(default_factory=lambda: random.Random(_SEED))  # noqa: S311 - a story, no secret
    slugs: dict[str, str] = field(default_factory=dict)
    systems: dict[str, tuple[str, str]] = field(default_factory=dict)
    spans: "itertools.count[int]" = field(default_factory=itertools.count)


def play(*, days: int, port: int, opens: bool) -> None:
    """Fill a server with `days` days of history and serve it until somebody stops it. Raises CommandFailed.

    opens: show the overview in the browser.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(interruptible())
        stage = Stage()
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lifesign-demo-")))
        smtp_port = stack.enter_context(mail_sink(stage))
        hook_url = stack.enter_context(hook_sink(stage))
        runner_url = stack.enter_context(_runner())
        key = new_key()
        shown = _now_s() // _HOUR_S
        start = rfc3339(EpochMs((shown - days * _DAY_HOURS) * _HOUR_S * 1000))
        manual = {"LIFESIGN_TESTING": "true", "LIFESIGN_CLOCK": "manual", "LIFESIGN_CLOCK_START": start}
        stage.tell("history", f"a server goes through {days} days; a month takes some four minutes, a week one")
        with running(directory, smtp_port, key, manual) as past, _world(past, key) as world:
            _settled(past)
            _made(stage, world, hook_url, runner_url)
            _lived(stage, world, days, shown)
            _shown_in_public(past, world)
            made = world
        with running(directory, smtp_port, key, port=port) as present:
            stage.tell("server", f"listens on {present.url}")
            stage.tell("sign in", f"as {EMAIL}, with the password: {PASSWORD}")
            if opens:
                webbrowser.open(present.url)
            stage.tell("live", "three heartbeats check in every few seconds; Ctrl-C ends it all")
            with _world(present, key) as world:
                world.slugs, world.systems = made.slugs, made.systems
                _goes_on(world, shown)


@contextlib.contextmanager
def _world(server: Running, key: str) -> Iterator[World]:
    with over_kept_network(server.url, key) as send, over_kept_network(server.url, None) as anonymous:
        yield World(Api(send), send, anonymous)


# What there is ------------------------------------------------------------------------------------------------------
def _made(stage: Stage, world: World, hook_url: str, runner_url: str) -> None:
    api = world.api
    mail = api.post("/v1/channels", {"name": "On-call mail", "type": "email", "config": {"to": "on-call@example.org"}})
    hook = api.post("/v1/channels", {"name": "Chat", "type": "webhook", "config": {"url": hook_url}})
    stage.secret = str(hook["config"]["secret"])
    steps: Json = [
        {"channels": [hook["id"]]},
        {"channels": [mail["id"]], "wait": 300},
        {"channels": [mail["id"]], "wait": 1800},
    ]
    policies = {
        "page": api.post("/v1/policies", {"name": "Page whoever is on call", "steps": steps})["id"],
        "tell": api.post("/v1/policies", {"name": "Tell the chat", "steps": [{"channels": [hook["id"]]}]})["id"],
    }
    for job in JOBS:
        body = {"name": job.name, "namespace": job.namespace, "tags": list(job.tags), "policy": policies[job.policy]}
        made = api.post("/v1/heartbeats", {**body, **job.timing})
        world.slugs[job.name] = str(made["slug"])
    for name in _LIVE:
        body = {"name": name, "mode": "recurring", "interval": 10, "grace": 10, "policy": policies["tell"]}
        made = api.post("/v1/heartbeats", {**body, "namespace": "live", "armed": False})
        world.slugs[name] = str(made["slug"])
    paused = api.post("/v1/heartbeats", {"name": "Old importer", "mode": "recurring", "interval": _HOUR_S})
    api.post(f"/v1/heartbeats/{paused['slug']}/pause")
    for name in SYSTEMS:
        body = {
            "name": name,
            "type": "server",
            "fqdn": f"{name}.example.org",
            "interval": _HOUR_S,
            "policy": policies["tell"],
        }
        data = api.post("/api/systems", body)["data"]
        assert isinstance(data, dict)  # noqa: S101 - as the API is published
        world.systems[name] = (str(data["id"]), str(data["secret"]))
    _bot(world, runner_url, str(hook["id"]))


def _bot(world: World, runner_url: str, channel: str) -> None:
    world.api.call("PUT", "/v1/bot/settings", {"project_id": "default", "notify_channels": [channel]})
    options: Json = {"runner": {"kind": "http", "url": runner_url}}
    body: Json = {"project_id": "default", "name": "Price watch", "heartbeat": 1, "model": "demo", "lifesign": options}
    made = world.api.post("/v1/bot/create", body)["bot"]
    assert isinstance(made, dict)  # noqa: S101 - as the API is published
    schedule: Json = {
        "project_id": "default",
        "bot_id": made["uuid"],
        "prompt": "Look at the prices of our three competitors and tell me what changed since this morning.",
        "interval_minutes": 120,
        "active_hours_start": "08:00",
        "active_hours_end": "18:00",
        "active_days": "1,2,3,4,5",
        "credit_budget": 500,
        "enabled": 1,
    }
    world.api.post("/v1/bot/heartbeat/configure", schedule)


# What happened ------------------------------------------------------------------------------------------------------
def _lived(stage: Stage, world: World, days: int, shown: int) -> None:
    """Go through all of it. shown: the hour in which the demo is shown, since 1970."""
    hours = days * _DAY_HOURS
    for hour in range(hours + 1):
        left = hours - hour
        if hour:
            _turned(world, _HOUR_S - _EARLY_S)
            _turned(world, _EARLY_S)
        _reported(world, shown, left)
        if left < _SPANS_DAYS * _DAY_HOURS:
            _agents(world, left)
        if hour and hour % (_DAY_HOURS * _TOLD_DAYS) == 0:
            stage.tell("history", f"{hour // _DAY_HOURS} of {days} days")
    # To the very moment, or the server would have been down for a while.
    now = str(world.api.get("/_test/clock")["now"])
    behind_s = _now_s() - _epoch_s(now)
    _turned(world, max(0, behind_s))
    world.api.post("/v1/runs/diagnose", {"since_minutes": 1440})


def _now_s() -> int:
    return SystemClock().now() // 1000


def _epoch_s(instant: str) -> int:
    return parse_timestamp(instant) // 1000


def _turned(world: World, seconds: int) -> None:
    world.api.post("/_test/advance", {"ms": seconds * 1000})


def _reported(world: World, shown: int, left: int) -> None:
    """What reports at an hour does. left: so many hours before the demo is shown."""
    _jobs(world, (shown - left) % _DAY_HOURS, left)
    _machines(world, left)


def _jobs(world: World, at: int, left: int) -> None:
    for job in JOBS:
        if job.hours is not None and at not in job.hours:
            continue
        silent = [(since, until) for since, until in job.outages if since >= left > until]
        if silent:
            if job.ended == "ack" and left == (silent[0][0] + silent[0][1]) // 2:
                _acknowledged(world, job)
            continue
        check_in(world.send, Proof(world.slugs[job.name], is_healthy=True))


def _acknowledged(world: World, job: Job) -> None:
    with contextlib.suppress(Refused):  # it is over already
        world.api.post(f"/v1/heartbeats/{world.slugs[job.name]}/ack")


def _machines(world: World, left: int) -> None:
    for name, (system_id, secret) in world.systems.items():
        if name == _DEAD and left < _DAY_HOURS // 2:
            continue
        basic = base64.b64encode(f"{system_id}:{secret}".encode()).decode()
        path, content = "/api/systems/heartbeat", encoded({"system_id": system_id})
        understood(world.anonymous(Call("POST", path, content, {"Authorization": f"Basic {basic}"})), path)


def _agents(world: World, left: int) -> None:
    """A few conversations; lately the tool that finds orders fails more often."""
    now_ns = _epoch_s(str(world.api.get("/_test/clock")["now"])) * 1_000_000_000
    spans = [
        span
        for _ in range(world.chance.randint(1, 4))
        for span in _conversation(world, now_ns, fails=world.chance.random() < (0.5 if left < _DAY_HOURS else 0.05))
    ]
    resource: Json = {
        "attributes": [_attribute("service.name", "support"), _attribute("deployment.environment.name", "prod")]
    }
    world.api.post("/v1/traces", {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]})


def _conversation(world: World, end_ns: int, *, fails: bool) -> list[Json]:
    number = next(world.spans)
    trace = f"{world.chance.getrandbits(128):032x}"
    begin = end_ns - world.chance.randint(60, 1800) * 1_000_000_000

    def span(
        name: str, at_ms: int, took_ms: int, parent: str | None, error: str | None = None, **said: Json
    ) -> dict[str, Json]:
        start = begin + at_ms * 1_000_000
        made: dict[str, Json] = {
            "traceId": trace,
            "spanId": f"{world.chance.getrandbits(64):016x}",
            "name": name,
            "startTimeUnixNano": str(start),
            "endTimeUnixNano": str(start + took_ms * 1_000_000),
            "attributes": [_attribute(key.replace("__", "."), value) for key, value in said.items()],
        }
        if parent is not None:
            made["parentSpanId"] = parent
        if error is not None:
            made["status"] = {"code": 2, "message": error}
        return made

    chat: dict[str, Json] = {"gen_ai__operation__name": "chat", "gen_ai__request__model": "gpt-5-mini"}
    root = span(
        "invoke_agent support", 0, 6200, None,
        gen_ai__operation__name="invoke_agent", gen_ai__agent__name="support", session__id=f"ticket-{4000 + number}",
    )  # fmt: skip
    root_id = str(root["spanId"])
    tool: dict[str, Json] = {"gen_ai__operation__name": "execute_tool", "gen_ai__tool__name": "find_order"}
    error = "orders did not answer within 900 ms" if fails else None
    if fails:
        tool["error__type"] = "TimeoutError"
    ask: dict[str, Json] = {
        "gen_ai__usage__input_tokens": world.chance.randint(800, 2400),
        "gen_ai__usage__output_tokens": world.chance.randint(60, 400),
    }
    return [
        root,
        span("chat gpt-5-mini", 120, 1600, root_id, **chat, **ask),
        span("execute_tool find_order", 1800, 900, root_id, error, **tool),
        span("chat gpt-5-mini", 2800, 2400, root_id, **chat, **ask),
    ]


def _attribute(key: str, value: Json) -> dict[str, Json]:
    is_number = isinstance(value, int)
    return {"key": key, "value": {"intValue": str(value)} if is_number else {"stringValue": str(value)}}


# Around it ----------------------------------------------------------------------------------------------------------
def _settled(server: Running) -> None:
    """The owner's account, by the link that was printed."""
    _form(
        server.setup_link or "",
        {"email": EMAIL, "password": PASSWORD, "again": PASSWORD},
        urllib.request.build_opener(),
    )


def _shown_in_public(server: Running, world: World) -> None:
    """A status page of what the public asks about."""
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
    _form(f"{server.url}/signin", {"email": EMAIL, "password": PASSWORD}, opener)
    with opener.open(f"{server.url}/settings/status/new") as page:
        token = re.search(rb'name="csrf" value="([0-9a-f]+)"', page.read())
    if token is None:
        raise CommandFailed("the demo failed: the server shows no form for a status page")
    members = "\n".join(world.slugs[name] for name in (*_LIVE, "Search index", "Invoices"))
    fields = {"csrf": token[1].decode(), "title": "Example Shop", "slug": "shop", "members": members, "is_on": "on"}
    _form(f"{server.url}/settings/status/new", fields, opener)


def _form(url: str, fields: Mapping[str, str], opener: urllib.request.OpenerDirector) -> None:
    request = urllib.request.Request(url, urllib.parse.urlencode(fields).encode())  # noqa: S310 - our own server
    with opener.open(request) as answer:
        answer.read()


@contextlib.contextmanager
def _runner() -> Iterator[str]:
    """Who does the runs of the bot; gives its address."""
    chance = random.Random(_SEED)  # noqa: S311 - a story, no secret

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            content = json.dumps(_result(chance)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as url:
        yield f"{url}/run"


def _result(chance: random.Random) -> dict[str, Json]:
    usage: Json = {"input_tokens": chance.randint(900, 3000), "output_tokens": chance.randint(80, 500), "requests": 3}
    if chance.random() < 0.06:  # noqa: PLR2004 - one in sixteen
        return {"status": "error", "error_message": "the second shop did not answer", "usage": usage}
    if chance.random() < 0.7:  # noqa: PLR2004 - most of the time
        return {"status": "success", "response": "HEARTBEAT_OK", "usage": usage}
    return {"status": "success", "response": "Two prices changed: the kettle is 4 EUR cheaper at both.", "usage": usage}


def _goes_on(world: World, shown: int) -> None:
    """Let some heartbeats live before the eyes of whoever looks: one of them falls silent now and then.

    And at each full hour whatever reports at that hour.
    """
    reported = shown
    for turn in itertools.count():
        with contextlib.suppress(CommandFailed):  # the next turn will do
            for name in _LIVE:
                if name != _LIVE[-1] or turn % _QUIET_TURN <= _QUIET_TURN // 2:
                    check_in(world.send, Proof(world.slugs[name], is_healthy=True))
            for hour in range(reported + 1, _now_s() // _HOUR_S + 1):
                _reported(world, shown, shown - hour)
                reported = hour
        time.sleep(_LIVE_S)
