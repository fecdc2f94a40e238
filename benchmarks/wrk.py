"""Load from wrk, and the reference it is compared with: a route of uvicorn that does nothing."""

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.stage import ADMIN_KEY, Server, program

_SPARE_S = 30
# No machine that this was tried on came near it.
_AT_MOST_PER_S = 25_000
_LISTENING = re.compile(r"listening on (\S+)")

# Cycles through the heartbeats; with `keyed`, each request carries an Idempotency-Key of its own. `salt` keeps the keys
# of two rounds apart. latency: microseconds.
_SCRIPT = """
local ids = {IDS}
local requests = {}
local n = 0
local head = {["Authorization"] = "Bearer KEY"}
local function formatted(id)
  return wrk.format("POST", "/v1/heartbeats/" .. id .. "/REPORT", head)
end
-- Made beforehand: what it takes to make them is not the server's.
function init()
  for i = 1, (KEYED and COUNT or #ids) do
    if KEYED then head["Idempotency-Key"] = "SALT-" .. i end
    requests[i] = formatted(ids[i % #ids + 1])
  end
end
function request()
  n = n + 1
  if n > #requests and KEYED then error("more requests than keys") end
  return requests[(n - 1) % #requests + 1]
end
"""
# Cycles through the systems; each reports for itself.
_BEATS = """
local systems = {SYSTEMS}
local requests = {}
local n = 0
function init()
  for i, each in ipairs(systems) do
    local head = {["Authorization"] = "Basic " .. each[2]}
    requests[i] = wrk.format("POST", "/api/systems/heartbeat", head, '{"system_id":"' .. each[1] .. '"}')
  end
end
function request()
  n = n + 1
  return requests[n % #requests + 1]
end
"""
# Cycles through ping URLs; `BODY` bytes go along, and a slug may stand in the place of a UUID.
_PINGS = """
local paths = {PATHS}
local requests = {}
local n = 0
function init()
  local body = BODY > 0 and string.rep("x", BODY) or nil
  for i, path in ipairs(paths) do requests[i] = wrk.format(body and "POST" or "GET", path, {}, body) end
end
function request()
  n = n + 1
  return requests[n % #requests + 1]
end
"""
_DONE = """
function done(summary, latency)
  local e = summary.errors
  io.write(string.format('LOAD {"requests":%d,"duration_us":%d,"p50_us":%d,"p99_us":%d,"failed":%d,"refused":%d}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect + e.read + e.write + e.timeout, e.status))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw."""

    rate: float
    p50_ms: float
    p99_ms: float
    requests: int


def check_in_load(
    server: Server,
    ids: Sequence[str],
    *,
    seconds: int,
    connections: int = 64,
    salt: str | None = None,
    report: str = "checkin",
) -> Load:
    """Check-ins for `seconds`, from one thread of wrk. Any answer but 2xx breaks the benchmark.

    salt: each check-in carries an Idempotency-Key of its own. report: what else to say of a heartbeat.
    """
    script = (
        _SCRIPT.replace("IDS", ",".join(f'"{each}"' for each in ids))
        .replace("REPORT", report)
        .replace("KEYED", "true" if salt else "false")
        .replace("KEY", ADMIN_KEY)
        .replace("SALT", salt or "")
        .replace("COUNT", str(seconds * _AT_MOST_PER_S))
    )
    return _load(server, script, seconds=seconds, connections=connections)


def beat_load(
    server: Server,
    systems: Sequence[tuple[str, str]],
    *,
    seconds: int,
    connections: int = 64,
    are_refused: bool = False,
) -> Load:
    """Heartbeats of systems for `seconds`: pairs of id and Basic credentials. are_refused: all of them ought to be."""
    listed = ",".join(f'{{"{system_id}","{basic}"}}' for system_id, basic in systems)
    script = _BEATS.replace("SYSTEMS", listed)
    return _load(server, script, seconds=seconds, connections=connections, are_refused=are_refused)


def ping_load(
    server: Server,
    paths: Sequence[str],
    *,
    seconds: int,
    connections: int = 64,
    body_bytes: int = 0,
    are_refused: bool = False,
) -> Load:
    """Pings for `seconds`, by path; with a body of so many bytes, if any. are_refused: all of them ought to be."""
    script = _PINGS.replace("PATHS", ",".join(f'"{each}"' for each in paths)).replace("BODY", str(body_bytes))
    return _load(server, script, seconds=seconds, connections=connections, are_refused=are_refused)


def _load(server: Server, script: str, *, seconds: int, connections: int, are_refused: bool = False) -> Load:
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as file:
        file.write(script + _DONE)
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", file.name, server.url]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + _SPARE_S)
    found = json.loads(told.stdout[told.stdout.index("LOAD ") + 5 :])
    if found["failed"] or found["refused"] != (found["requests"] if are_refused else 0):
        raise RuntimeError(f"of {found['requests']} requests not all were answered as they ought to be:\n{told.stdout}")
    rate = found["requests"] / (found["duration_us"] / 1_000_000)
    return Load(rate, found["p50_us"] / 1000, found["p99_us"] / 1000, found["requests"])


@contextmanager
def bare_route() -> Iterator[Server]:
    """A process that answers every request with the same 60 bytes, with the server's own uvicorn settings."""
    with program(["-m", "benchmarks.bare"], {"PYTHONPATH": str(Path(__file__).parents[1])}, _LISTENING) as server:
        yield server
