"""How tests start runs, do them as a worker would, and look at what became of them."""

from typing import Any

from tests.bots.asking import asked, bot, configured
from tests.harness import Json, Lifesign

PULL = {"runner": {"kind": "pull"}}


async def scheduled(lifesign: Lifesign, /, *, lifesign_bot: Json | None = None, **fields: Any) -> Json:
    """An enabled schedule of a bot whose runs are done by `worked`, unless said otherwise."""
    owner = await bot(lifesign, lifesign=PULL | (lifesign_bot or {}))
    return await configured(lifesign, owner["id"], **{"enabled": True} | fields)


async def claimed(lifesign: Lifesign) -> Json | None:
    """The next run, under a lease."""
    found: Json | None = (await asked(lifesign, "POST", "/runs/claim", {}))["run"]
    return found


async def beaten(lifesign: Lifesign, run: Json, *, expect: int = 200, **told: Any) -> Json:
    """What a run that was claimed is told when its worker reports."""
    body = {"run_id": run["run_id"], "lease_token": run["lease_token"]} | told
    return await asked(lifesign, "POST", "/runs/heartbeat", body, expect=expect)


async def finished(lifesign: Lifesign, run: Json, *, expect: int = 200, **told: Any) -> Json:
    """A run that was claimed, after its end."""
    body = {"run_id": run["run_id"], "lease_token": run["lease_token"], "status": "success", "response": "Done."} | told
    answer = await asked(lifesign, "POST", "/runs/finish", body, expect=expect)
    return answer["run"] if expect == 200 else answer


async def worked(lifesign: Lifesign, **told: Any) -> Json:
    """Do the next run, which there is."""
    run = await claimed(lifesign)
    assert run is not None
    return await finished(lifesign, run, **told)


async def logs(lifesign: Lifesign, heartbeat: Json, **query: Any) -> list[Json]:
    """What became of the runs of a schedule, newest first."""
    which = {"bot_id": heartbeat["bot_id"], "heartbeat_id": heartbeat["uuid"]} | query
    told = await asked(lifesign, "GET", "/heartbeat/logs", **which)
    found: list[Json] = told["logs"]
    return found


async def triggered(
    lifesign: Lifesign, heartbeat: Json, *, expect: int = 202, client: Any = None, **query: Any
) -> Json:
    """A run now, that goes on by itself."""
    ref = {"bot_id": heartbeat["bot_id"], "heartbeat_id": heartbeat["uuid"]}
    told = await asked(
        lifesign, "POST", "/heartbeat/trigger", ref, expect=expect, client=client, **{"async": "true"} | query
    )
    return told["run"] if expect == 202 else told


async def ran(lifesign: Lifesign, heartbeat: Json) -> Json:
    """A run now, done by its runner, after its end."""
    run = await triggered(lifesign, heartbeat)
    await lifesign.advance()
    told: Json = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"]
    return told


async def transcript(lifesign: Lifesign, run: Json) -> list[Json]:
    """What was said in a run."""
    told = await asked(lifesign, "GET", "/heartbeat/transcript", run_id=run["uuid"])
    found: list[Json] = told["transcript"]
    return found
