"""Where models and tools are: providers and servers of a project, those of the operator, and whether they answer."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpcore2
from sqlalchemy import Connection

from lifesign.bots import notices, probe_store, project_settings
from lifesign.bots.agent.messages import McpServer, Provider
from lifesign.bots.asking import BOTS_SECRETS, Offers
from lifesign.bots.records import ProjectSettings, Schedule
from lifesign.bots.reports import Report
from lifesign.bots.runners.commands import Command, passed_on
from lifesign.bots.tools import SERVER_LABELS, by_server
from lifesign.channels.secrets import SecretBox
from lifesign.channels.targets import AddressRefused
from lifesign.channels.wire import WireBackend
from lifesign.clock import Clock, EpochMs
from lifesign.db import Database
from lifesign.settings import Settings

DEFAULT: Final = "default"
_VENDORS: Final = {"openai": ("https://api.openai.com/v1", 443), "anthropic": ("https://api.anthropic.com", 443)}
_PROBE_MS: Final = 300_000
_CONNECT_S: Final = 2.0
_TELLS_AT: Final = 3


class Place(NamedTuple):
    """A provider, and what it is called. vendor: by which tables of prices know it; None where it is not the vendor."""

    name: str
    provider: Provider
    vendor: str | None


# Any, in these: JSON as it is stored.
def of_server(settings: Settings) -> list[dict[str, Any]]:
    """The providers that the operator set by variables, in the form of a project's."""
    chosen = (
        ("openai", settings.openai_api_key, settings.openai_base_url),
        ("anthropic", settings.anthropic_api_key, settings.anthropic_base_url),
    )
    found: list[dict[str, Any]] = []
    for kind, secret, base_url in chosen:
        if secret is None and base_url is None:
            continue
        key = None if secret is None else secret.get_secret_value()
        entry: dict[str, Any] = {"name": kind, "kind": kind, "base_url": base_url, "plain": key}
        if key is not None:
            entry["hint"] = key[-4:] if len(key) > 8 else ""  # noqa: PLR2004 - twice the hint
        found.append(entry)
    return found


class Providers:
    """Finds the provider of a run."""

    def __init__(self, box: SecretBox, on_server: Sequence[Mapping[str, Any]], default_project: str) -> None:
        """on_server: the operator's, which only the default project sees."""
        self._box = box
        self._on_server = on_server
        self._default_project = default_project

    def shown_to(self, project_id: str) -> Sequence[Mapping[str, Any]]:
        """The operator's providers that a project may use."""
        return self._on_server if project_id == self._default_project else ()

    def offers(self, project_id: str, servers: "Servers") -> Offers:
        """What the operator offers a project."""
        names = frozenset(each["name"] for each in self.shown_to(project_id))
        return Offers(names, servers.labels_for(project_id))

    def find(self, settings: ProjectSettings, name: str) -> Place | None:
        """The provider of this name; `default` is the first there is. Raises SecretUnreadable."""
        own = [*settings.options.providers]
        shown = [*self.shown_to(settings.project_id)]
        # A project's own come first, under whatever name.
        for entry in [*own, *shown]:
            if name not in {DEFAULT, entry["name"]}:
                continue
            key = entry.get("plain")
            if "key" in entry:
                key = self._box.open(entry["key"], settings.project_id, entry["name"], kind=BOTS_SECRETS)
            provider = Provider(entry["kind"], entry.get("base_url"), key, is_guarded="plain" not in entry)
            return Place(entry["name"], provider, _vendor(provider))
        return None


def _vendor(provider: Provider) -> str | None:
    """Who it is, if it is the vendor: what others sell under the name of a model may have another price."""
    host = urlsplit(provider.base_url or _VENDORS[provider.kind][0]).hostname
    return provider.kind if host == urlsplit(_VENDORS[provider.kind][0]).hostname else None


class Servers:
    """Finds the servers of tools that a run may use: those of its project, and programs of the operator."""

    def __init__(self, box: SecretBox, programs: Mapping[str, Command], default_project: str) -> None:
        self._box = box
        self._programs = programs
        self._default_project = default_project

    def labels_for(self, project_id: str) -> dict[str, frozenset[str]]:
        """The operator's that a project may use, with their labels."""
        return {
            name: SERVER_LABELS if each.labels is None else frozenset(each.labels)
            for name, each in self._programs.items()
            if each.is_for(project_id, self._default_project)
        }

    def find(self, settings: ProjectSettings, names: Iterable[str]) -> list[McpServer]:
        """Those that an allow-list needs; what is gone meanwhile is left out. Raises SecretUnreadable."""
        own = {each["name"]: each for each in settings.options.mcp_servers}
        found = []
        for name, tools in by_server(names).items():
            program = self._programs.get(name)
            if (entry := own.get(name)) is not None:
                headers = project_settings.server_headers(self._box, settings.project_id, entry)
                found.append(McpServer(name, tools, entry["url"], headers))
            elif program is not None and program.is_for(settings.project_id, self._default_project):
                env = passed_on(program)
                found.append(McpServer(name, tools, argv=program.argv, env=env, cwd=program.cwd))
        return found


# Preflight ----------------------------------------------------------------------------------------------------------
def place_of(provider: Provider) -> tuple[str, int]:
    """Host and port that a provider listens on."""
    parts = urlsplit(provider.base_url or _VENDORS[provider.kind][0])
    return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)


class Preflight:
    """Whether a provider can be reached, asked at most once in five minutes for all nodes together."""

    def __init__(self, db: Database, clock: Clock, guarded: httpcore2.AsyncNetworkBackend) -> None:
        """guarded: connects for providers that people of a project named."""
        self._db = db
        self._clock = clock
        self._guarded = guarded
        self._unguarded = WireBackend()
        self._turns: dict[tuple[str, int], asyncio.Lock] = {}

    async def reaches(self, project_id: str, provider: Provider) -> bool:
        """Whether a connection could be made of late."""
        host, port = place_of(provider)
        place = f"{host}:{port}"
        async with self._turns.setdefault((host, port), asyncio.Lock()):
            known = await self._db.read(probe_store.probe, project_id, place)
            if known is not None and 0 <= self._clock.now() - known.at < _PROBE_MS:
                return known.is_reachable
            backend = self._guarded if provider.is_guarded else self._unguarded
            is_reachable = await _connects(backend, host, port)
            await self._db.write(
                probe_store.save_probe, project_id, place, is_reachable=is_reachable, now=self._clock.now()
            )
            return is_reachable

    async def skipped(self, schedule: Schedule, provider: Provider) -> None:
        """A run of a schedule was skipped because of it; after the third in a row somebody is told, once."""
        host, port = place_of(provider)
        await self._db.write(_count_skip, schedule, f"{host}:{port}", self._clock.now())


async def _connects(backend: httpcore2.AsyncNetworkBackend, host: str, port: int) -> bool:
    try:
        stream = await backend.connect_tcp(host, port, timeout=_CONNECT_S)
    except AddressRefused:
        # Nobody may learn here what listens within the operator's network; the run itself tells why it fails.
        return True
    except (OSError, UnicodeError, httpcore2.NetworkError, httpcore2.TimeoutException):
        return False
    await stream.aclose()
    return True


def _count_skip(conn: Connection, schedule: Schedule, place: str, now: EpochMs) -> None:
    if probe_store.count_skip(conn, schedule.project_id, place) != _TELLS_AT:
        return
    subject = notices.subject_of(conn, schedule)
    if subject is None:
        return
    title = "the provider of the model cannot be reached"
    text = f"{title.capitalize()}: no connection to {place}. Runs are skipped until it answers again."
    told = Report(True, "warning", title, text, f"unreachable:{place}")  # noqa: FBT003 - a field
    notices.tell(conn, subject, told, cause=f"{schedule.project_id}:{place}:{now}", n=1, now=now)
