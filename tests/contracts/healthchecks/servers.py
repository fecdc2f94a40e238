"""Who is asked: a node of this process, on a clock turned by hand, or a Healthchecks server somewhere."""

import os
from dataclasses import dataclass
from typing import Any

import httpx2
from pydantic import SecretStr

from lifesign.clock import EpochMs, rfc3339
from lifesign.pings.badges import uuid_of
from lifesign.projects import service as projects
from tests.contracts.healthchecks.answers import Answer, Names
from tests.contracts.healthchecks.script import OTHER_RID, RID, SCRIPT, Scene, Step, Wait
from tests.harness import Lifesign, MakeLifesign
from tests.pings.pinging import ping_key
from tests.shared import new_project

METRICS_KEY = "scraper-of-the-script"
VARIABLE = "LIFESIGN_TEST_HEALTHCHECKS_"
# What has to be told of a Healthchecks server beside its address, by the words of the script.
TOLD = {
    "full": "KEY",
    "read": "READ_KEY",
    "ping": "PING_KEY",
    "other": "OTHER_KEY",
    "metrics": "METRICS_KEY",
    "project": "PROJECT",
}
_S = 1000
_KNOWN = {RID: "<rid>", OTHER_RID: "<other rid>"}


@dataclass(frozen=True, slots=True)
class Asked:
    """A step, the scene it is of, and what was answered."""

    about: str
    step: Step
    answer: Answer

    def told(self) -> str:
        """Which step it is."""
        return f"{self.about}: {self.step.method} {self.step.path}"


# Lifesign -------------------------------------------------------------------------------------------------------------
async def answers_here(start: MakeLifesign) -> list[Asked]:
    """The whole script, as Lifesign answers it."""
    asked: list[Asked] = []
    async with start(metrics_key=SecretStr(METRICS_KEY)) as node:
        names = await _prepared(node)
        for scene in SCRIPT:
            if _gap(scene) is not None:
                continue
            asked += await _play(node, names, scene.about, scene.steps)
    for scene in SCRIPT:
        gap = _gap(scene)
        if gap is not None:
            asked += await _with_gap(start, scene.about, scene.steps, gap)
    return asked


def _gap(scene: Scene) -> int | None:
    """After how many steps the server is not there for a while."""
    return next((n for n, step in enumerate(scene.steps) if isinstance(step, Wait) and step.is_blind), None)


async def _with_gap(start: MakeLifesign, about: str, steps: tuple[Step | Wait, ...], gap: int) -> list[Asked]:
    """A scene in which the server is stopped, and started again after a while."""
    wait = steps[gap]
    assert isinstance(wait, Wait)
    async with start() as node:
        names = await _prepared(node)
        asked = await _play(node, names, about, steps[:gap])
        again = rfc3339(EpochMs(node.now() + round(wait.seconds * _S)))
    async with start(at=again) as node, node.client(None) as http:
        return [*asked, *[await _asked(node, http, names, about, step) for step in steps[gap + 1 :]]]


async def _prepared(node: Lifesign) -> Names:
    """What the script needs to be there: keys, a second project, one channel."""
    if not (await node.ask("GET", "/v1/channels"))["channels"]:
        await node.webhook("http://127.0.0.1:1", "ops")
    ping = await ping_key(node)
    async with new_project(node) as other:
        other_key = other.http.headers["authorization"].removeprefix("Bearer ")
    project = await node.node.db.write(projects.ensure_default, node.now())
    said = {
        "full": await ping_key(node, "heartbeats:write"),
        "read": await ping_key(node, "heartbeats:read"),
        "ping": ping,
        "ping_in_capitals": ping.upper(),
        "other": other_key,
        "metrics": METRICS_KEY,
        "project": uuid_of(project),
    }
    return Names("http://lifesign.test", said, dict(_KNOWN))


async def _play(node: Lifesign, names: Names, about: str, steps: tuple[Step | Wait, ...]) -> list[Asked]:
    asked: list[Asked] = []
    async with node.client(None) as http:
        await _clean(http, names)
        for step in steps:
            if isinstance(step, Wait):
                await node.advance(step.seconds)
            else:
                asked.append(await _asked(node, http, names, about, step))
    return asked


async def _asked(node: Lifesign, http: httpx2.AsyncClient, names: Names, about: str, step: Step | Wait) -> Asked:
    assert isinstance(step, Step)
    if step.path.startswith("/ping/"):
        # Nothing takes no time at all.
        node.clock.set(EpochMs(node.now() + _S))
    return Asked(about, step, await _ask(http, names, step))


# Healthchecks ---------------------------------------------------------------------------------------------------------
def is_told() -> bool:
    """Whether a Healthchecks server is at hand."""
    return f"{VARIABLE}URL" in os.environ


async def answers_there() -> list[Asked]:
    """The script, as Healthchecks answers it, but for what needs a turned clock or an API of Lifesign's."""
    said = {word: os.environ[VARIABLE + name] for word, name in TOLD.items()}
    said["ping_in_capitals"] = said["ping"].upper()
    names = Names(os.environ[f"{VARIABLE}URL"].rstrip("/"), said, dict(_KNOWN))
    asked: list[Asked] = []
    for scene in SCRIPT:
        async with httpx2.AsyncClient(base_url=names.base, timeout=30) as http:
            await _clean(http, names)
            for step in scene.steps:
                if isinstance(step, Wait) or step.is_ours:
                    break
                asked.append(Asked(scene.about, step, await _ask(http, names, step)))
    return asked


# Both -----------------------------------------------------------------------------------------------------------------
async def _ask(http: httpx2.AsyncClient, names: Names, step: Step) -> Answer:
    path = names.filled(step.path)
    headers = {name: names.filled(value) for name, value in step.headers.items()}
    if step.key is not None:
        scheme = ("Authorization", "Bearer ") if step.is_ours and path.startswith("/v1/") else ("X-Api-Key", "")
        headers[scheme[0]] = scheme[1] + names.said[step.key]
    body = None if step.body is None else _filled(names, step.body)
    got = await http.request(step.method, path, json=body, content=step.content, headers=headers)
    if step.keep and "json" in got.headers.get("content-type", ""):
        names.keep(step.keep, got.json())
    return Answer.of(got, names)


def _filled(names: Names, body: Any) -> Any:  # Any: JSON
    if isinstance(body, dict):
        return {name: _filled(names, value) for name, value in body.items()}
    return names.filled(body) if isinstance(body, str) else body


async def _clean(http: httpx2.AsyncClient, names: Names) -> None:
    """Remove every check of the project: each scene makes those it asks about."""
    headers = {"X-Api-Key": names.said["full"]}
    for each in (await http.get("/api/v3/checks/", headers=headers)).json()["checks"]:
        await http.delete(f"/api/v3/checks/{each['uuid']}", headers=headers)
