"""The Python client: what it reports for jobs, and that it never stands in their way."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from lifesign.client import Client, LifesignError
from tests.cli.conftest import Server, StandIn, server, stand_in
from tests.harness import Json

__all__ = ["server", "stand_in"]

AWAY = "http://127.0.0.1:9"


@pytest.fixture
def client(server: Server) -> Client:
    """A client of the server, with every right."""
    return Client(server.url, server.key)


def _heartbeat(server: Server, name: str) -> str:
    slug: str = server.told("heartbeats", "create", name, "--every", "1h")["slug"]
    return slug


def _runs(server: Server, slug: str) -> list[Json]:
    found: list[Json] = server.told("heartbeats", "runs", slug)["runs"]
    return found


def _until(condition: Callable[[], Any]) -> None:  # Any: whatever is true in the end
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Check-ins ----------------------------------------------------------------------------------------------------------
def test_a_check_in_is_answered(server: Server, client: Client) -> None:
    slug = _heartbeat(server, "py check-in")

    answer = client.check_in(slug, metadata={"rows": 7})

    assert (answer["status"], answer["healthy"]) == ("active", True)
    assert server.told("heartbeats", "get", slug)["metadata"] == {"rows": 7}
    assert client.check_in(slug, healthy=False)["status"] == "firing"


def test_a_check_in_that_is_refused_or_lost_is_raised(server: Server, client: Client) -> None:
    with pytest.raises(LifesignError, match="Resource not found") as unknown:
        client.check_in("no/body")
    with pytest.raises(LifesignError, match="Missing or invalid API key"):
        Client(server.url, "wrong").check_in("job")
    with pytest.raises(LifesignError, match=r"cannot reach http://127\.0\.0\.1:9: ") as away:
        Client(AWAY, "x").check_in("job")

    assert (unknown.value.status, away.value.status) == (404, None)


def test_a_check_in_is_tried_again_as_the_same_one(stand_in: StandIn) -> None:
    stand_in.script += [(503, {}), (500, {}), (429, {})]

    Client(stand_in.url, "x").check_in("job")

    sent = [headers["idempotency-key"] for headers, _ in stand_in.requests()]
    assert len(sent) == 4
    assert len(set(sent)) == 1


@pytest.mark.parametrize("url", ["lifesign.example.org", "ftp://x", "http://", "http://u:p@x", "http://x:0"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    with pytest.raises(ValueError, match="is not the address of a server"):
        Client(url, "x")


def test_address_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch, server: Server) -> None:
    for name in ("LIFESIGN_KEY", "LIFESIGN_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="no API key: give key= or set LIFESIGN_KEY"):
        Client()
    monkeypatch.setenv("LIFESIGN_URL", server.url)
    monkeypatch.setenv("LIFESIGN_KEY", server.key)

    assert Client().check_in(_heartbeat(server, "py environment"))["status"] == "active"


# Runs ---------------------------------------------------------------------------------------------------------------
def test_a_run_is_begun_goes_on_and_ends(server: Server, client: Client) -> None:
    slug = _heartbeat(server, "py run")

    with client.run(slug, lease=30, max_duration=600) as run:
        _until(lambda: _runs(server, slug))
        run.progress("half way")
        _until(lambda: _runs(server, slug)[0].get("message") == "half way")
        running = _runs(server, slug)[0]
        run.metadata["rows"] = 7

    (ended,) = _runs(server, slug)
    assert (running["status"], ended["status"], ended["metadata"]) == ("running", "finished", {"rows": 7})
    assert "limitAt" in ended
    assert server.told("heartbeats", "get", slug)["status"] == "active"


def test_a_run_gives_a_sign_of_life_within_its_lease(server: Server, client: Client) -> None:
    slug = _heartbeat(server, "py lease")

    with client.run(slug, lease=2):
        _until(lambda: _runs(server, slug))
        time.sleep(3)
        status = _runs(server, slug)[0]["status"]

    assert status == "running"


def test_what_a_job_raises_is_told_and_goes_on(server: Server, client: Client) -> None:
    slug = _heartbeat(server, "py failure")

    @client.watch(slug)
    def job(rows: int, *, name: str) -> str:
        """Do it."""
        if name == "bad":
            raise KeyError(rows)
        return f"{name} {rows}"

    assert job(7, name="good") == "good 7"
    assert (job.__name__, job.__doc__) == ("job", "Do it.")
    with pytest.raises(KeyError):
        job(8, name="bad")

    failed, finished = _runs(server, slug)
    assert (failed["status"], failed["message"], finished["status"]) == ("failed", "KeyError: 8", "finished")
    assert server.told("heartbeats", "get", slug)["status"] == "firing"


@pytest.mark.parametrize(("code", "status"), [(0, "finished"), (None, "finished"), (3, "failed"), ("no", "failed")])
def test_an_exit_ends_a_run_as_its_code_says(server: Server, client: Client, code: object, status: str) -> None:
    slug = _heartbeat(server, f"py exit {code}")

    with pytest.raises(SystemExit), client.run(slug):
        raise SystemExit(code)

    assert _runs(server, slug)[0]["status"] == status


async def test_asynchronous_jobs_are_watched_without_keeping_the_loop(server: Server, client: Client) -> None:
    slug = _heartbeat(server, "py async")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0.01)

    @client.watch(slug)
    async def job(rows: int) -> int:
        await asyncio.sleep(0.05)
        return rows

    ticking = asyncio.create_task(tick())
    results = await asyncio.gather(*(job(n) for n in range(3)))
    canceled = asyncio.create_task(job(1))
    await asyncio.sleep(0.02)
    canceled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await canceled
    ticking.cancel()

    assert results == [0, 1, 2]
    assert ticks > 5
    _until(lambda: sorted(run["status"] for run in _runs(server, slug)) == ["failed", *["finished"] * 3])


def test_a_server_that_is_away_delays_nothing_and_fails_nothing(caplog: pytest.LogCaptureFixture) -> None:
    client = Client(AWAY, "x")

    with caplog.at_level(logging.WARNING), client.run("job") as run:
        began = time.monotonic()
        run.progress("on")
        took_s = time.monotonic() - began

    assert took_s < 0.5
    (record,) = caplog.records
    assert record.getMessage().startswith("the end of a run of job was not reported: cannot reach http://127.0.0.1:9")


def test_a_refusal_is_logged_once_and_the_job_goes_on(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):

        @client.watch("nobody")
        def job() -> int:
            return 7

        assert job() == 7

    assert [record.getMessage() for record in caplog.records] == [
        "the end of a run of nobody was not reported: Resource not found"
    ]


def test_metadata_that_is_no_json_does_not_fail_the_job(
    server: Server, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    slug = _heartbeat(server, "py metadata")

    with client.run(slug) as run:
        run.metadata["bad"] = object()

    assert "was not reported: Object of type object is not JSON serializable" in caplog.text


def test_a_run_happens_once(client: Client) -> None:
    run = client.run("job")
    with run:
        pass

    with pytest.raises(RuntimeError, match="a run happens once"):
        run.__enter__()
