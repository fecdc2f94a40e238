"""Uses the package `healthchecks-io` against a server, call by call; run with its own environment's Python.

    python use_client.py sync|async API_URL API_KEY READ_ONLY_KEY PING_URL PING_KEY

Prints `all is well` after the last of its assertions. `get_check_flips` is left out: it reads a bare list, where the
API answers `{"flips": [...]}`.
"""

import asyncio
import inspect
import sys
from typing import Any

import healthchecks_io as hc

MODE, API_URL, API_KEY, READ_ONLY_KEY, PING_URL, PING_KEY = sys.argv[1:]


def client(key: str) -> Any:  # Any: of two kinds
    kind = hc.Client if MODE == "sync" else hc.AsyncClient
    return kind(api_key=key, ping_key=PING_KEY, api_url=API_URL, ping_url=PING_URL, api_version=1)


async def done(result: Any) -> Any:  # Any: what the package answers
    """The same lines for both kinds of client."""
    return await result if inspect.isawaitable(result) else result


async def main() -> None:
    full, reader = client(API_KEY), client(READ_ONLY_KEY)
    name = f"foreign {MODE}"
    wanted = hc.CheckCreate(name=name, tags="a b", desc="d", timeout=120, grace=60, channels="*", unique=["name"])
    made = await done(full.create_check(wanted))
    again = await done(full.create_check(wanted))
    assert (made.uuid, made.status, made.timeout) == (again.uuid, "new", 120)
    cron = await done(full.create_check(hc.CheckCreate(name=f"{name} cron", schedule="0 2 * * *", tz="Europe/Berlin")))
    assert cron.uuid != made.uuid

    changed = await done(full.update_check(made.uuid, hc.CheckUpdate(name=name, desc="other", timeout=300, grace=60)))
    assert (changed.desc, changed.timeout) == ("other", 300)
    assert (await done(full.get_check(made.uuid))).name == name
    assert {each.uuid for each in await done(full.get_checks(tags=["a", "b"]))} >= {made.uuid}

    for sent in (
        full.start_ping(uuid=made.uuid),
        full.success_ping(uuid=made.uuid, data="all is well"),
        full.fail_ping(uuid=made.uuid, data="all is lost"),
        full.exit_code_ping(0, uuid=made.uuid),
        full.success_ping(slug=made.slug),
    ):
        assert await done(sent) == (True, "OK")
    pings = await done(full.get_check_pings(made.uuid))
    assert [each.type for each in pings] == ["success", "success", "fail", "success", "start"]
    assert [each.number_of_pings for each in pings] == [5, 4, 3, 2, 1]
    assert pings[3].duration is not None
    seen = next(each for each in await done(reader.get_checks()) if each.name == name)
    assert (seen.uuid, seen.ping_url) == (None, None)
    assert (await done(reader.get_check(seen.unique_key))).name == name
    try:
        await done(reader.pause_check(made.uuid))
    except hc.HCAPIAuthError:
        pass
    else:
        raise AssertionError("a read-only key paused a check")

    assert (await done(full.pause_check(made.uuid))).status == "paused"
    assert [each.kind for each in await done(full.get_integrations())] == ["webhook"]
    badges = await done(full.get_badges())
    assert {"*", "a", "b"} <= set(badges)

    if MODE == "sync":
        with hc.CheckTrap(full, uuid=cron.uuid) as trap:
            trap.add_log("a line")
    else:
        async with hc.CheckTrap(full, uuid=cron.uuid) as trap:
            trap.add_log("a line")
    assert [each.type for each in await done(full.get_check_pings(cron.uuid))] == ["success", "start"]

    assert (await done(full.delete_check(cron.uuid))).name == f"{name} cron"
    try:
        await done(full.get_check(cron.uuid))
    except hc.CheckNotFoundError:
        pass
    else:
        raise AssertionError("a deleted check was found")
    sys.stdout.write("all is well\n")


asyncio.run(main())
