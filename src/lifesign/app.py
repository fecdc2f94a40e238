"""The ASGI app: which slice is mounted where, and what a node consists of.

Start-up opens the database, the store of records, the receiver, the channels' kit, the keyring and the engine, in this
order. Shutdown: stop accepting and stop the engine (sends finish), close the way out, the receiver, which waits for
what it is storing, the store, and last the database; these two commit what is queued before they close.
"""

import copy
import functools
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError
from starlette.applications import Starlette
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from lifesign import __version__, observe
from lifesign.acks import hooks as ack_hooks
from lifesign.acks import links as ack_links
from lifesign.acks.rules import Turnstile
from lifesign.auth import routes as auth_routes
from lifesign.auth import service as auth
from lifesign.auth.service import Keyring
from lifesign.auth.vitals.service import VitalsKeyring
from lifesign.bots import admin_routes as bot_admin_routes
from lifesign.bots import routes as bot_routes
from lifesign.bots import run_routes as bot_run_routes
from lifesign.bots.execution import MOST_SECONDS, Executor
from lifesign.bots.providers import Preflight, Providers, Servers, of_server
from lifesign.bots.runners.builtin import BuiltinRunner, tell_what_is_missing
from lifesign.bots.runners.commands import CommandRunner, programs_in
from lifesign.bots.runners.contract import MAX_ANSWER_BYTES, Runner
from lifesign.bots.runners.requests import HttpRunner
from lifesign.bots.runners.spans import Spans
from lifesign.bots.tracing import Tracer
from lifesign.bots.watching import Watcher
from lifesign.channels import routes as channel_routes
from lifesign.channels.acklinks import ACK_LINKS_INFO, AckSigner
from lifesign.channels.delivery import Courier
from lifesign.channels.guard import GuardedBackend, Resolver, policy_of
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.secrets import SecretBox, derived_key, master_secrets
from lifesign.channels.service import Kit
from lifesign.clock import Clock, CorrectedClock, EpochMs, ManualClock, SystemClock, parse_timestamp
from lifesign.db import Database, offset, open_database
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import LOCK_FILE, SQLITE_FILE, NoDatabase, data_directory_lock, is_postgres
from lifesign.diagnosis import overview_routes
from lifesign.diagnosis import routes as diagnosis_routes
from lifesign.diagnosis.service import Diagnoses
from lifesign.documents import routes as document_routes
from lifesign.engine.alive import Alive
from lifesign.engine.audit import Audit, Deadman
from lifesign.engine.bots import BotsClaim, BotsReap, BotsRun
from lifesign.engine.deliver import Deliver
from lifesign.engine.driver import Driver, Loop
from lifesign.engine.erasure import Eraser, RowsOfTables
from lifesign.engine.loops import Escalate, Housekeeping, Reap, Sweep
from lifesign.engine.prune import Prune
from lifesign.engine.rules import Watch
from lifesign.engine.spans import PruneSpans
from lifesign.envelopes.edge import Edge, HotRoute, answer_error
from lifesign.envelopes.failures import TABLE
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import routes as heartbeat_routes
from lifesign.heartbeats import run_routes
from lifesign.heartbeats.checkins import CheckIns
from lifesign.heartbeats.holds import HeartbeatsInWindows
from lifesign.heartbeats.service import HeartbeatsAsUsers
from lifesign.http.context import Context
from lifesign.http.crossroads import Crossroads
from lifesign.http.describe import ABOUT, TAGS, component_schemas, correct, path_item_of, without_framework_errors
from lifesign.http.description import Description, written
from lifesign.http.direct import DirectRoute
from lifesign.ids import new_id
from lifesign.incidents import routes as incident_routes
from lifesign.incidents.fallback import SettingsAsChannelUser
from lifesign.incidents.policies import PoliciesAsChannelUsers
from lifesign.incidents.service import tuning_of
from lifesign.maintenance import routes as maintenance_routes
from lifesign.pings import badges, ping_routes
from lifesign.pings import routes as management_routes
from lifesign.pings.badges import BADGES_INFO, Signer
from lifesign.pings.service import Limits, Pings
from lifesign.preferences import routes as preference_routes
from lifesign.projects import admin_routes
from lifesign.projects import routes as project_routes
from lifesign.projects import service as projects
from lifesign.projects.rules import DEFAULT_PROJECT, ProjectAmbiguous, ProjectNotFound
from lifesign.settings import Settings
from lifesign.systems import inventory_routes, machine_routes
from lifesign.systems import routes as system_routes
from lifesign.systems import service as systems
from lifesign.systems.beats import Beats
from lifesign.systems.credentials import Machines
from lifesign.systems.inventory_routes import Intake
from lifesign.telemetry import otlp_routes
from lifesign.telemetry import routes as telemetry_routes
from lifesign.telemetry import schemas as telemetry_schemas
from lifesign.telemetry.receiver import Receiver
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores import open_store
from lifesign.usage import admin_routes as usage_admin_routes
from lifesign.usage import key_routes
from lifesign.usage import routes as dashboard_routes
from lifesign.usage.counted import Counted
from lifesign.usage.log import UsageLog
from lifesign.vitals import kept_routes as measurement_routes
from lifesign.vitals import routes as vitals_routes
from lifesign.vitals import stream as vitals_stream
from lifesign.vitals.service import Vitals
from lifesign.web import admin_routes as user_admin_routes
from lifesign.web import audit_routes as audit_pages
from lifesign.web import bot_routes as bot_pages
from lifesign.web import bot_run_routes as bot_run_pages
from lifesign.web import bot_schedule_routes as bot_schedule_pages
from lifesign.web import bot_settings_routes as bot_settings_pages
from lifesign.web import channel_routes as channel_pages
from lifesign.web import dashboard_routes as dashboard_pages
from lifesign.web import diagnosis_routes as diagnosis_pages
from lifesign.web import heartbeat_routes as heartbeat_pages
from lifesign.web import incident_routes as incident_pages
from lifesign.web import key_routes as key_pages
from lifesign.web import live_routes, oidc_routes
from lifesign.web import overview_routes as board_routes
from lifesign.web import policy_routes as policy_pages
from lifesign.web import routes as people_routes
from lifesign.web import service as people
from lifesign.web import settings_routes as settings_pages
from lifesign.web import status_routes as status_pages
from lifesign.web import system_routes as system_pages
from lifesign.web import telemetry_routes as telemetry_pages
from lifesign.web import usage_routes as usage_pages
from lifesign.web import vitals_routes as vitals_pages
from lifesign.web.live import Live
from lifesign.web.passwords import Passwords
from lifesign.web.signing import SignOn
from lifesign.web.status_routes import StatusAnswers
from lifesign.web.visits import VISITS_INFO, VisitSigner


@dataclass(frozen=True, slots=True)
class _Hot:
    """A route that is asked so often that the framework would cost more than the work.

    described: its operation; None: it speaks the language of others, who describe it.
    """

    path: str
    endpoint: Callable[[Request], Awaitable[Response]]
    described: Mapping[str, Any] | None
    tag: str
    methods: frozenset[str] = frozenset({"POST"})

    @property
    def pattern(self) -> re.Pattern[str]:
        one_part = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.path)
        return re.compile(re.sub(r"\{(\w+):path\}", r"(?P<\1>.+)", one_part))


# In the order in which they are tried.
_HOT = (
    _Hot("/v1/heartbeats/{idOrSlug}/checkin", heartbeat_routes.check_in, heartbeat_routes.CHECK_IN, "Heartbeats"),
    _Hot("/ping/{rest:path}", ping_routes.ping, None, "Pings", ping_routes.METHODS),
    _Hot("/api/systems/heartbeat", machine_routes.system_heartbeat, machine_routes.HEARTBEAT, "Machines"),
    _Hot("/v1/heartbeats/{idOrSlug}/runs/{runId}/progress", run_routes.report_progress, run_routes.PROGRESS, "Runs"),
    _Hot(otlp_routes.PATH, otlp_routes.export_traces, telemetry_schemas.EXPORT_TRACES, "Telemetry"),
)


_DIRECT = (
    heartbeat_routes.direct_check_in,
    ping_routes.direct_ping,
    machine_routes.direct_heartbeat,
    run_routes.direct_progress,
)


@dataclass(frozen=True, slots=True)
class Node:
    """One running Lifesign: everything that a process holds."""

    id: str
    settings: Settings
    clock: Clock
    db: Database
    store: SpanStore
    receiver: Receiver
    keyring: Keyring
    usage: UsageLog
    vitals: Vitals
    courier: Courier
    driver: Driver
    bots: Executor
    sign_on: SignOn | None
    app: ASGIApp
    api: FastAPI
    direct: Sequence[DirectRoute]
    """What the server answers without asking `app`, where it can."""
    new_admin_key: str | None
    """Made at this start and to be shown once; None when there was one."""
    new_setup_token: str | None
    """The same, of the link that makes the owner."""

    async def close(self) -> None:
        """Finish what was acknowledged and let go of everything. The engine was stopped before, if it ran."""
        await self.bots.close()
        await self.api.state.description.close()
        await self.courier.kit.outbound.aclose()
        if self.sign_on is not None:
            await self.sign_on.provider.aclose()
        await self.vitals.close()
        await self.usage.close()
        await self.receiver.close()
        await self.store.close()
        await self.db.close()


def clock_of(settings: Settings) -> Clock:
    """The machine's clock, or a manual one when testing asks for it."""
    if settings.testing and settings.clock == "manual":
        start = settings.clock_start
        return ManualClock(EpochMs(parse_timestamp(start)) if start else SystemClock().now())
    # On PostgreSQL the database's clock is the one that all nodes share.
    return CorrectedClock(SystemClock()) if is_postgres(settings) else SystemClock()


async def open_node(
    settings: Settings,
    *,
    clock: Clock | None = None,
    resolver: Resolver | None = None,
    is_server: bool = True,
    is_alone: bool = False,
) -> Node:
    """Open everything; the engine does not run yet. With SQLite the caller holds the data directory.

    is_server: see to the admin key; the operator's commands need none, and would not show it. is_alone: the process
    serves for long, and what it would do but once is left to another.
    """
    clock = clock or clock_of(settings)
    failpoints = Failpoints(settings.failpoints if settings.testing else "")
    db = open_database(settings, failpoints)
    store: SpanStore | None = None
    try:
        store = open_store(settings, failpoints)
        receiver = Receiver(settings, clock, db, store)
        if isinstance(clock, CorrectedClock):
            await offset.correct(db, clock)
        now = clock.now()
        guard = policy_of(settings)
        kit = Kit(
            SecretBox.from_settings(settings.data_dir, settings),
            guard,
            OutboundClient(settings, resolver=resolver, on_written=lambda: failpoints.hit("send.after_write")),
            AckSigner([derived_key(each, ACK_LINKS_INFO) for each in master_secrets(settings.data_dir, settings)]),
        )
        codes = projects.codes_of(settings)
        programs = programs_in(settings.data_dir)
        # Last: the key of a first start is shown once, so nothing may go wrong after it was made.
        new_admin_key, new_setup_token = await _bootstrapped(db, settings, now, is_server=is_server)
    except BaseException:
        if store is not None:
            await store.close()
        await db.close()
        raise
    if is_server:
        await _adopt_settings(db, settings, now)
        tell_what_is_missing()
    node_id = new_id("node", now)
    keyring = Keyring(db, clock)
    courier = Courier(settings, clock, db, kit)
    default_project = await db.read(projects.id_of, DEFAULT_PROJECT)
    providers = Providers(kit.box, of_server(settings), default_project)
    servers = Servers(kit.box, programs.servers, default_project)
    builtin = BuiltinRunner(
        db,
        clock,
        providers,
        servers=servers,
        preflight=Preflight(db, clock, GuardedBackend(guard, resolver)),
        guard=guard,
        ca_file=None if settings.ca_file is None else str(settings.ca_file),
        prices=receiver.prices,
        spans=functools.partial(Spans, receiver, clock),
    )
    bots = _executor(
        settings,
        clock,
        db,
        kit=kit,
        tracer=Tracer(db, receiver),
        watcher=Watcher(db, clock, CheckIns(failpoints, tuning_of(settings))),
        resolver=resolver,
        runner=CommandRunner(programs.commands, default_project),
        builtin=builtin,
    )
    driver = _driver(settings, clock, db, store=store, keyring=keyring, courier=courier, node_id=node_id, bots=bots)
    api = _api(settings, is_alone=is_alone)
    api.state.context = Context(settings, clock, db)
    api.state.node_id = node_id
    api.state.store = store
    api.state.receiver = receiver
    api.state.otlp_origins = otlp_routes.Origins.of(settings)
    api.state.keyring = keyring
    api.state.vitals = vitals = Vitals.of(settings)
    api.state.vitals_keyring = VitalsKeyring(db, clock)
    api.state.usage = usage = UsageLog(db, clock)
    api.state.codes = codes
    api.state.courier = courier
    api.state.driver = driver
    api.state.bots = bots
    api.state.providers = providers
    api.state.bot_offers = lambda project_id: providers.offers(project_id, servers)
    api.state.check_ins = check_ins = CheckIns(failpoints, tuning_of(settings))
    api.state.beats = Beats(check_ins)
    api.state.diagnoses = Diagnoses(settings, clock, db, store, check_ins)
    api.state.badge_signer = Signer(
        [derived_key(each, BADGES_INFO) for each in master_secrets(settings.data_dir, settings)]
    )
    api.state.visit_signer = VisitSigner(
        [derived_key(each, VISITS_INFO) for each in master_secrets(settings.data_dir, settings)]
    )
    api.state.pings = Pings(tuning_of(settings), Limits.of(settings))
    api.state.machines = Machines(db)
    api.state.intake = Intake(settings.inventory_ignore)
    heartbeats = HeartbeatsAsUsers(tuning_of(settings))
    api.state.turnstile = Turnstile()
    api.state.passwords = Passwords()
    api.state.sign_on = sign_on = SignOn.of(settings, resolver)
    api.state.live = Live(db)
    api.state.status_answers = StatusAnswers()
    api.state.policy_users = heartbeats
    api.state.coverage = HeartbeatsInWindows(tuning_of(settings))
    # Heartbeats first: they ask policies which of them name the channel, before those forget it.
    api.state.channel_users = [heartbeats, PoliciesAsChannelUsers(), SettingsAsChannelUser()]
    hot = [HotRoute(api, each.methods, each.pattern, each.endpoint) for each in _HOT]
    if settings.otlp_cors_origins:
        # Nowhere else is OPTIONS a method of it: the routes are those of all nodes in this process.
        hot.append(HotRoute(api, frozenset({"OPTIONS"}), re.compile(otlp_routes.PATH), otlp_routes.allow_origin))
    app = Counted(Edge(api, clock, hot), usage, clock, api.state.known_routes)
    return Node(
        node_id,
        settings,
        clock,
        db,
        store,
        receiver,
        keyring,
        usage,
        vitals,
        courier,
        driver,
        bots,
        sign_on,
        app,
        api,
        [route(api.state) for route in _DIRECT],
        new_admin_key,
        new_setup_token,
    )


class _Secrets(NamedTuple):
    """What a first start makes, to be shown once."""

    admin_key: str | None
    setup_token: str | None


async def _bootstrapped(db: Database, settings: Settings, now: EpochMs, *, is_server: bool) -> _Secrets:
    if not is_server:
        await db.write(projects.ensure_default, now)
        return _Secrets(None, None)
    chosen = settings.admin_key.get_secret_value() if settings.admin_key else None
    try:
        return await db.write(_bootstrap, chosen, now)
    except IntegrityError:
        # Another node does the same on the same empty database at this moment; what it made is there by now.
        return await db.write(_bootstrap, chosen, now)


def _bootstrap(conn: Connection, chosen: str | None, now: EpochMs) -> _Secrets:
    project_id = projects.ensure_default(conn, now)
    is_first_start = projects.is_first_start(conn, project_id, now)
    key = auth.bootstrap(conn, project_id, chosen, is_first_start=is_first_start, now=now)
    return _Secrets(key, people.ensure_setup_link(conn, now))


async def _adopt_settings(db: Database, settings: Settings, now: EpochMs) -> None:
    """Systems are waited for as the settings say now, whatever they said when each was made."""
    windows, tuning = systems.windows_of(settings), tuning_of(settings)
    after: str | None = ""
    while after is not None:
        after = await db.write(systems.adopt_windows, windows, after=after, tuning=tuning, now=now)


def _lag_ms(driver: Driver, now: EpochMs) -> int:
    """How late the latest of the loops is that must run for a silence to be told."""
    return max(driver.lag_ms(name, now) for name in ("sweep", "escalate", "deliver"))


def _driver(
    settings: Settings,
    clock: Clock,
    db: Database,
    *,
    store: SpanStore,
    keyring: Keyring,
    courier: Courier,
    node_id: str,
    bots: Executor,
) -> Driver:
    is_manual = isinstance(clock, ManualClock)
    # What erases deleted projects; a slice that keeps something elsewhere adds its own before the tables.
    erasers: list[Eraser] = [store, RowsOfTables(db)]
    tuning = tuning_of(settings)
    watch = Watch(
        settings.blind_after_seconds * 1000,
        settings.blind_min_hold_seconds * 1000,
        settings.blind_max_hold_seconds * 1000,
    )
    alive = Alive(db, clock, node_id, watch)
    outbound, url = courier.kit.outbound, settings.deadman_url
    deadman = None if url is None else Deadman(outbound, url, lambda: _lag_ms(driver, clock.now()))
    loops: list[Loop] = [
        alive,
        Sweep(db, tuning, watch, may_fire=alive.may_fire, is_manual=is_manual, monotonic=clock.monotonic),
        Escalate(db, tuning, monotonic=clock.monotonic),
        Deliver(courier, node_id),
        Reap(db),
        BotsClaim(db, is_halted=settings.bots_stopped),
        BotsRun(db, bots, node_id, is_halted=settings.bots_stopped),
        BotsReap(db, bots),
        Housekeeping(db, keyring),
        Prune(
            db,
            erasers,
            event_days=settings.event_days,
            packet_days=settings.packet_retention_days,
            measurement_days=settings.vitals_retention_days,
            bot_run_days=settings.bot_run_days,
            bot_transcript_days=settings.bot_transcript_days,
            may_delete=alive.may_delete,
        ),
        PruneSpans(store, settings.telemetry_retention_days, alive.may_delete),
        Audit(db, tuning, deadman),
    ]
    driver = Driver(clock, db.wakeups, loops, attest=alive.attest, may_work=lambda: db.refusal is None)
    return driver


def _executor(
    settings: Settings,
    clock: Clock,
    db: Database,
    *,
    kit: Kit,
    tracer: Tracer,
    watcher: Watcher,
    resolver: Resolver | None,
    runner: CommandRunner,
    builtin: BuiltinRunner,
) -> Executor:
    """Who does runs of bots on this node."""
    # The address listened on; a port that the system chose is known only later, and needs `PUBLIC_URL`.
    base_url = settings.public_url or f"http://{settings.host}:{settings.port}"
    patient = OutboundClient(
        settings, resolver=resolver, total_timeout_s=MOST_SECONDS, max_body_bytes=MAX_ANSWER_BYTES + 1
    )
    runners: dict[str, Runner] = {
        "builtin": builtin,
        "command": runner,
        "http": HttpRunner(patient, kit.box, lambda: base_url),
    }
    return Executor(
        db,
        clock,
        runners,
        prechecks=kit.outbound,
        tracer=tracer,
        watcher=watcher,
        on_end=lambda: db.wakeups.wake({"bots_run"}),
        owned=[patient, builtin],
    )


def _api(settings: Settings, *, is_alone: bool) -> FastAPI:
    """The app of one node: a state of its own, and the routes of all nodes in this process."""
    api = copy.copy(_routed(is_testing=settings.testing))
    apart = ["-c", DESCRIBES, *(["testing"] if settings.testing else [])] if is_alone else []
    api.state = State({"known_routes": [*api.state.known_routes], "description": Description(api.openapi, apart)})
    return api


DESCRIBES = "from lifesign.app import write_description; write_description()"


def write_description() -> None:
    """Write what `/openapi.json` answers to standard output: what another process does for a server."""
    api = _routed(is_testing="testing" in sys.argv[1:])
    sys.stdout.buffer.write(written(api.openapi()))


@functools.cache
def _routed(*, is_testing: bool) -> FastAPI:
    # Kept: the framework works every route out when it is asked for the first time, which takes longer than all else
    # that opening a node does. Nothing here may belong to one node.
    # The same FastAPI, but `/docs` loads nothing from elsewhere: servers that watch others often cannot reach it.
    api = FastAPIOffline(
        title="Lifesign",
        version=__version__,
        description="Knows whether everything you run is alive, and makes sure somebody finds out when it is not.",
        redirect_slashes=False,
        redoc_url=None,
        static_url="/docs/static",
        # Its spans would cost every check-in a tenth of its time; `/metrics` tells what is worth knowing.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    # In the place of the framework's own, which would work it out here.
    api.router.routes = [
        observe.openapi_route if isinstance(each, Route) and each.path == api.openapi_url else each
        for each in api.router.routes
    ]
    hot = [Route(each.path, each.endpoint, methods=sorted(each.methods)) for each in _HOT]
    foreign = [*management_routes.routes, *badges.routes]
    api.router.routes[:0] = [*hot, *foreign]
    api.state.known_routes = [*hot, *foreign]
    for router in (
        heartbeat_routes.router,
        run_routes.router,
        maintenance_routes.router,
        machine_routes.router,
        inventory_routes.machine_router,
        inventory_routes.router,
        system_routes.router,
        incident_routes.router,
        channel_routes.router,
        auth_routes.router,
        project_routes.router,
        incident_routes.incident_router,
        preference_routes.router,
        channel_routes.log_router,
        ack_links.router,
        ack_hooks.router,
        telemetry_routes.router,
        diagnosis_routes.router,
        overview_routes.router,
        document_routes.router,
        key_routes.router,
        dashboard_routes.router,
        vitals_routes.router,
        measurement_routes.router,
        vitals_stream.router,
        people_routes.router,
        oidc_routes.router,
        board_routes.router,
        heartbeat_pages.router,
        incident_pages.router,
        live_routes.router,
        policy_pages.router,
        channel_pages.router,
        system_pages.router,
        bot_pages.router,
        bot_schedule_pages.router,
        bot_run_pages.router,
        telemetry_pages.router,
        diagnosis_pages.router,
        dashboard_pages.router,
        usage_pages.router,
        key_pages.router,
        settings_pages.router,
        bot_settings_pages.router,
        audit_pages.router,
        status_pages.router,
        vitals_pages.router,
        bot_routes.router,
        bot_run_routes.router,
        observe.router,
    ):
        api.include_router(router)
        api.state.known_routes += router.routes
    if is_testing:
        api.include_router(observe.testing_router)
        api.state.known_routes += observe.testing_router.routes
    api.router.middleware_stack = Crossroads(api.router)
    for kind in (*TABLE, HTTPException, Exception):
        api.add_exception_handler(kind, answer_error)
    api.openapi = _describer(api)  # type: ignore[method-assign]  # FastAPI's documented way to extend the description
    return api


def _describer(api: FastAPI) -> Callable[[], dict[str, Any]]:
    def describe() -> dict[str, Any]:
        if api.openapi_schema is None:
            described = get_openapi(
                title=api.title,
                version=api.version,
                description=ABOUT,
                routes=api.routes,
                tags=list(TAGS),
            )
            # Not through the framework, which takes no path for an address.
            described["externalDocs"] = {"url": "/llms.txt", "description": "The same in short, and where to read on."}
            models: set[type[BaseModel]] = set()
            for hot in _HOT:
                if hot.described is None:
                    continue
                operation = path_item_of(
                    hot.described,
                    summary=hot.endpoint.__name__.replace("_", " ").capitalize(),
                    tags=[hot.tag],
                    description=hot.endpoint.__doc__ or "",
                    models=models,
                )
                described["paths"].setdefault(hot.path, {})["post"] = operation
            correct(described["paths"])
            components = described.setdefault("components", {})
            components["schemas"] = component_schemas(models) | without_framework_errors(components.get("schemas", {}))
            components["securitySchemes"] = {
                "BearerAuth": {"type": "http", "scheme": "bearer", "bearerFormat": "API Key"},
                "BasicAuth": {"type": "http", "scheme": "basic"},
                "ApiKeyAuth": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            }
            api.openapi_schema = described
        return api.openapi_schema

    return describe


# The operator's way in ----------------------------------------------------------------------------------------------
class OperatorApp:
    """The same routes with the rights of whoever owns the data directory, and those below `/admin/`.

    A header names the project.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        # Nothing but this app knows these routes, so that no mistake of theirs opens them to the network.
        self._admin = Starlette(
            routes=[
                *admin_routes.routes,
                *bot_admin_routes.routes,
                *usage_admin_routes.routes,
                *user_admin_routes.routes,
            ],
            exception_handlers=dict.fromkeys((*TABLE, HTTPException, Exception), answer_error),
        )
        self._admin.state = node.api.state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises InvalidInput when the header names no project, or several."""
        if scope["type"] == "http":
            # Before anything can fail: the operator is told of a project that is not there as of everything else.
            scope[auth.OPERATOR] = None
            sent = dict(scope["headers"]).get(b"x-lifesign-project", DEFAULT_PROJECT.encode())
            project_id = await self._project_id(sent.decode("latin-1"))
            scope = {**scope, auth.OPERATOR: auth.noted(auth.operator(project_id))}
            if scope["path"].startswith("/admin/"):
                await self._admin(scope, receive, send)
                return
        await self._node.api(scope, receive, send)

    async def _project_id(self, sent: str) -> str:
        # Percent-encoded: names are in any script, headers are not.
        ref = unquote(sent)
        try:
            return await self._node.db.read(projects.id_of, ref)
        except ProjectNotFound as error:
            raise InvalidInput(Fault("project", f"{ref!r} does not exist")) from error
        except ProjectAmbiguous as error:
            ids = ", ".join(error.project_ids)
            raise InvalidInput(Fault("project", f"{ref!r} is the name of several, give an id: {ids}")) from error


def operator_way_in(node: Node) -> ASGIApp:
    """The operator's app of a running node."""
    return Edge(OperatorApp(node), node.clock)


@asynccontextmanager
async def operator_app(settings: Settings) -> AsyncIterator[ASGIApp]:
    """The operator's app without a server: opens the database itself, runs no engine.

    Raises DataDirectoryInUse, and NoDatabase when nobody named a directory and there is none where one would be: a key
    of a database that was made by mistake would open nothing.
    """
    is_named = is_postgres(settings) or "data_dir" in settings.model_fields_set
    if not is_named and not any((settings.data_dir / each).exists() for each in (SQLITE_FILE, LOCK_FILE)):
        raise NoDatabase(settings.data_dir)
    with nullcontext() if is_postgres(settings) else data_directory_lock(settings.data_dir):
        node = await open_node(settings, is_server=False)
        try:
            yield operator_way_in(node)
        finally:
            await node.close()


def admin_socket(settings: Settings) -> Path:
    """Where the operator's commands reach a running server."""
    return settings.data_dir / "admin.sock"
