"""Bots of a server that runs by itself: its processes, and the calls of the client that others wrote."""

import asyncio
import contextlib
import json
import os
import select
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bots.modelserver import ModelServer, model_server
from tests.bots.test_builtin import children
from tests.faults.server import Server, serving, until
from tests.harness import ADMIN_KEY, Json

NODE = shutil.which("node")
START, LATER = "2026-01-05T12:00:00Z", "2026-01-05T12:01:10Z"

# What the official client sends, in the order of its calls: one object of options, which it keeps and adds to; ids in
# the body of POST and PUT and in the query of GET and DELETE; whatever is not set as `undefined` or `null`.
CLIENT = """
const [base, key] = process.argv.slice(2);
const options = {project_id: "default", tags: [], mode: "auto", member_id: undefined};
const told = {};

async function call(method, path, fields = {}) {
  Object.assign(options, fields);
  const isBody = method === "POST" || method === "PUT";
  const ids = ["project_id", "bot_id", "heartbeat_id", "member_id"];
  const query = ids.map((name) => `${name}=${options[name]}`).join("&");
  const answer = await fetch(base + "/v1/bot" + path + (isBody ? "" : "?" + query), {
    method,
    headers: {"Content-Type": "application/json", Authorization: "Bearer " + key},
    body: isBody ? JSON.stringify(options) : undefined,
  });
  const body = await answer.json();
  told[method + " " + path] = body.error ? {error: body} : body;
  return body;
}

const {bot} = await call("POST", "/create", {name: "Client", model: process.argv[4], status: true});
await call("PUT", "/update", {bot_id: bot.id, heartbeat: true});
const {heartbeat} = await call("POST", "/heartbeat/configure", {prompt: "Anything new?", interval_minutes: 60});
await call("GET", "/heartbeat/readall", {heartbeat_id: heartbeat.uuid});
await call("GET", "/heartbeat/read");
await call("POST", "/heartbeat/enable");
await call("POST", "/heartbeat/trigger");
await call("GET", "/heartbeat/logs");
await call("GET", "/heartbeat/stats");
await call("POST", "/heartbeat/disable");
await call("DELETE", "/heartbeat/delete");
await call("GET", "/readall");
await call("GET", "/read");
await call("POST", "/reset");
await call("GET", "/subscriber/readall");
await call("DELETE", "/delete");
console.log(JSON.stringify(told));
"""


@pytest.fixture
def models() -> Iterator[ModelServer]:
    """A server of models with a loop of its own: what asks it here waits without one."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    context = model_server()
    try:
        yield asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def has_ended(pid: int, within_s: float) -> bool:
    """Whether a process of somebody else ends in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    with contextlib.closing(os.fdopen(descriptor, "rb", buffering=0)) as file:
        poll = select.poll()
        poll.register(file, select.POLLIN)
        return bool(poll.poll(within_s * 1000))


def _triggered(server: Server, model: str) -> tuple[Json, str]:
    """A schedule, enabled, and a run of it by hand; its id."""
    made = server.ask("POST", "/v1/bot/create", {"project_id": "default", "name": "b", "heartbeat": 1, "model": model})
    ref = {"project_id": "default", "bot_id": made["bot"]["id"]}
    fields = {"prompt": "Look.", "enabled": 1}
    schedule = server.ask("POST", "/v1/bot/heartbeat/configure", ref | fields)["heartbeat"]
    ref["heartbeat_id"] = schedule["uuid"]
    run = server.ask("POST", "/v1/bot/heartbeat/trigger?async=true", ref, expect=202)["run"]
    return ref, run["uuid"]


def test_a_server_that_is_killed_leaves_no_process_and_its_run_is_lost(tmp_path: Path, models: ModelServer) -> None:
    model = models.script({"hang": True})
    variables = {"openai_base_url": models.url, "testing": 1, "clock": "manual"}
    with serving(tmp_path, **variables, clock_start=START) as server:
        pid = server.process.pid
        before = children(pid)
        ref, run_id = _triggered(server, model)
        with contextlib.suppress(Exception):
            # It answers once the run has ended, which it does not.
            server.request("POST", "/_test/advance", {"ms": 0}, timeout_s=0.5)
        until(lambda: bool(models.asked(model)), within_s=60)
        (host,) = children(pid)
        (run,) = children(host)

        server.kill()

        assert has_ended(host, 5)
        assert has_ended(run, 5)
    with serving(tmp_path, **variables, clock_start=LATER) as server:
        server.ask("POST", "/_test/advance", {"ms": 0})
        logged = server.ask("GET", f"/v1/bot/heartbeat/run?project_id=default&run_id={run_id}")["run"]
        schedule = server.ask("GET", "/v1/bot/heartbeat/read?" + "&".join(f"{k}={v}" for k, v in ref.items()))
    assert (logged["status"], logged["lifesign"]["reason"]) == ("error", "lost")
    assert schedule["heartbeat"]["lifesign"]["next_run_at"] == "2026-01-05T12:30:00.000Z"
    assert before == []


@pytest.mark.skipif(NODE is None, reason="Node is not installed")
def test_the_calls_of_the_official_client_all_succeed(tmp_path: Path, models: ModelServer) -> None:
    model = models.script({"say": "Nothing new."})
    script = tmp_path / "client.mjs"
    script.write_text(CLIENT)

    with serving(tmp_path, openai_base_url=models.url) as server:
        argv = [str(NODE), str(script), server.url, ADMIN_KEY, model]
        ended = subprocess.run(argv, check=False, capture_output=True, text=True, timeout=120)

    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert {name: each for name, each in told.items() if "error" in each} == {}
    assert len(told) == 16
    result = told["POST /heartbeat/trigger"]["result"]
    assert (result["status"], result["response"]) == ("success", "Nothing new.")
    assert told["GET /heartbeat/logs"]["total"] == 1
    assert told["POST /heartbeat/enable"]["heartbeat"]["enabled"] == 1
    assert told["POST /heartbeat/disable"]["heartbeat"]["enabled"] == 0
    assert told["GET /read"]["bot"]["heartbeat"] == 1
    assert told["DELETE /heartbeat/delete"] == {"success": True, "message": "Heartbeat deleted"}
