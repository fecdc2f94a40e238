"""Kills servers at random moments while messages leave by the hundred, then counts what was promised.

    python -m tests.faults.killing --kills 200

Servers are real (`lifesign serve`), one on SQLite, two on one PostgreSQL; so is the receiver, in a process of its own,
whose ledger survives every kill. Heartbeats come and go; each has a webhook of its own and a policy that
tells another. What is counted: check-ins that were answered and are not stored; messages that fell due and did not
arrive; messages that arrived twice without a crash that explains it; incidents that overlap.
"""

import argparse
import contextlib
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests import postgres
from tests.faults.server import Server, starting, until
from tests.harness import ADMIN_KEY, Json
from tests.peers.process import LedgerPeer, ledger_peer

_INTERVAL_S = 3
_WORKERS = 8
_HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}
# Past every lease and every rung that a few failures can have led to.
_SETTLE_S = 900


@dataclass(frozen=True, slots=True)
class Result:
    """What was counted in one run."""

    database: str
    nodes: int
    kills: int
    check_ins: int
    check_ins_lost: int
    incidents: int
    overlapping: int
    messages: int
    lost: int
    requests: int
    duplicates: int
    unexplained: int
    out_of_order: int
    slowest_start_s: float

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.check_ins_lost or self.overlapping or self.lost or self.unexplained or self.out_of_order)


class Node:
    """One server that is started again whenever it was killed."""

    def __init__(self, directory: Path, variables: dict[str, object]) -> None:
        self._directory = directory
        self._variables = variables
        self._stack = contextlib.ExitStack()
        self.server: Server | None = None
        self.slowest_start_s = 0.0

    def start(self, **more: object) -> None:
        """Start it; it may not be ready yet."""
        self._began = time.monotonic()
        self._is_timed = False
        self.server = self._stack.enter_context(starting(self._directory, **(self._variables | more)))

    def url(self) -> str | None:
        """Where it listens, once it does."""
        server = self.server
        if server is None or "listening on " not in server.output.read_text():
            return None
        if not self._is_timed:
            self._is_timed = True
            self.slowest_start_s = max(self.slowest_start_s, time.monotonic() - self._began)
        return server.url

    def await_ready(self) -> None:
        """Return once it listens."""
        until(lambda: self.url() is not None, within_s=60)

    def kill(self) -> None:
        """SIGKILL, whatever it is doing."""
        if self.server is not None:
            self.server.kill()
            self.server = None

    def stop(self) -> None:
        """Let it end by itself."""
        if self.server is not None:
            self.server.terminate()
            self.server.exit_code(within_s=60)
            self.server = None

    def close(self) -> None:
        """End whatever is left of it."""
        self._stack.close()


@dataclass
class Load:
    """Workers that check in, acknowledge, and write down which check-ins were answered."""

    nodes: list[Node]
    heartbeats: int
    answered: list[int] = field(default_factory=list)
    _number: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopping: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def running(self, seed: int) -> Iterator[None]:
        """Work until the block ends."""
        threads = [threading.Thread(target=self._work, args=(random.Random(seed + n),)) for n in range(_WORKERS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            for thread in threads:
                thread.join()

    def await_answer(self) -> None:
        """Return once one more check-in was answered."""
        before = len(self.answered)
        until(lambda: len(self.answered) > before, within_s=60)

    def _work(self, chance: random.Random) -> None:
        with httpx2.Client(headers=_HEADERS, timeout=10, trust_env=False) as http:
            while not self._stopping.is_set():
                url = chance.choice(self.nodes).url()
                if url is None:
                    self._stopping.wait(0.02)
                    continue
                # A kill breaks connections; what was not answered is not counted.
                with contextlib.suppress(httpx2.TransportError):
                    self._act(http, url, chance)

    def _act(self, http: httpx2.Client, url: str, chance: random.Random) -> None:
        path = f"{url}/v1/heartbeats/job-{chance.randrange(self.heartbeats)}"
        if chance.random() < 0.05:
            http.post(f"{path}/ack", json={})
            return
        with self._lock:
            self._number += 1
            number = self._number
        answer = http.post(f"{path}/checkin", json={"metadata": {"n": number}, "healthy": chance.random() < 0.9})
        if answer.status_code == 200:
            with self._lock:
                self.answered.append(number)


def run(
    directory: Path, ledger: LedgerPeer, *, database_url: str | None, kills: int, seed: int, heartbeats: int = 200
) -> Result:
    """Kill `kills` times, let everything settle, count."""
    chance = random.Random(seed)
    # Flapping and storms would hold messages back, which is right and not what is counted here.
    variables: dict[str, object] = {
        "log_level": "error",
        "database_url": database_url,
        "flap_limit": 0,
        "min_repeat_seconds": 5,
        "secret_key": "k" * 32,
    }
    count = 1 if database_url is None else 2
    nodes = [Node(directory / ("node" if count == 1 else f"node{n}"), variables) for n in range(count)]
    load = Load(nodes, heartbeats)
    try:
        for node in nodes:
            node.start()
            node.await_ready()
        _prepare(nodes[0].server, ledger, heartbeats)
        with load.running(seed):
            _kill_again_and_again(nodes, load, kills, chance)
        for node in nodes:
            node.await_ready()
        _pause_all(nodes[0].server, heartbeats)
        for node in nodes:
            node.stop()
        _let_time_pass(nodes[0])
        return _count(nodes, ledger, load, database_url=database_url, kills=kills)
    finally:
        for node in nodes:
            node.close()


def _prepare(server: Server | None, ledger: LedgerPeer, heartbeats: int) -> None:
    assert server is not None
    own = server.webhook(f"{ledger.url}/hook/ops")
    other = server.webhook(f"{ledger.url}/hook/second")
    steps = [{"channels": [other], "wait": 1}]
    policy = server.ask("POST", "/v1/policies", {"name": "p", "steps": steps, "repeatLastStep": True}, expect=201)
    for number in range(heartbeats):
        server.heartbeat(f"job-{number}", interval=_INTERVAL_S, grace=0, channels=[own], policy=policy["id"])


def _kill_again_and_again(nodes: list[Node], load: Load, kills: int, chance: random.Random) -> None:
    for _ in range(kills):
        node = chance.choice(nodes)
        # Mostly while it works, however long it takes to begin on a busy machine; sometimes while it starts.
        if chance.random() < 0.9:
            node.await_ready()
            load.await_answer()
        time.sleep(chance.uniform(0.02, 0.6))
        node.kill()
        node.start()


def _pause_all(server: Server | None, heartbeats: int) -> None:
    assert server is not None
    for number in range(heartbeats):
        server.ask("POST", f"/v1/heartbeats/job-{number}/pause")


def _let_time_pass(node: Node) -> None:
    """Leases of killed servers run out: on a clock that is turned, so that nobody has to wait for it."""
    node.start(testing="true", clock="manual")
    node.await_ready()
    assert node.server is not None
    node.server.ask("POST", "/_test/advance", {"ms": _SETTLE_S * 1000})


# Counting -----------------------------------------------------------------------------------------------------------
def _count(nodes: list[Node], ledger: LedgerPeer, load: Load, *, database_url: str | None, kills: int) -> Result:
    server = nodes[0].server
    assert server is not None
    notifications = _all(server, "/v1/notifications", "notifications")
    incidents = _all(server, "/v1/incidents", "incidents")
    requests = [each for name in ("ops", "second") for each in ledger.requests(f"/hook/{name}")]
    arrived = Counter(each.headers["webhook-id"] for each in requests)
    first_at: dict[str, int] = {}
    for position, each in enumerate(sorted(requests, key=lambda each: each.at)):
        first_at.setdefault(each.headers["webhook-id"], position)
    lost = [each for each in notifications if not _is_settled(each, arrived)]
    paged = {each["incident"] for each in notifications if each["kind"] == "page"}
    unpaged = [each for each in incidents if each["id"] not in paged]
    # Each attempt of which nobody knows how it ended may have arrived, and is the only thing that explains a repeat.
    unexplained = sum(max(0, arrived[each["id"]] - 1 - _unknown(each)) for each in notifications)
    stored = _stored_check_ins(server, load.heartbeats)
    return Result(
        database="SQLite" if database_url is None else "PostgreSQL",
        nodes=len(nodes),
        kills=kills,
        check_ins=len(load.answered),
        check_ins_lost=len(set(load.answered) - stored),
        incidents=len(incidents),
        overlapping=_overlapping(incidents),
        messages=len(notifications),
        lost=len(lost) + len(unpaged),
        requests=len(requests),
        duplicates=sum(times - 1 for times in arrived.values()),
        unexplained=unexplained + len(set(arrived) - {each["id"] for each in notifications}),
        out_of_order=_out_of_order(notifications, first_at),
        slowest_start_s=max(node.slowest_start_s for node in nodes),
    )


def _is_settled(notification: Json, arrived: Counter[str]) -> bool:
    """Sent and arrived; or canceled, because its incident was over before it left."""
    if notification["status"] == "sent":
        return arrived[notification["id"]] > 0
    return bool(notification["status"] == "canceled")


def _unknown(notification: Json) -> int:
    return sum(each.get("outcome") == "unknown" for each in notification["attempts"])


def _overlapping(incidents: list[Json]) -> int:
    """Incidents of one heartbeat that began before the one before them was over."""
    by_heartbeat: dict[str, list[Json]] = {}
    for incident in reversed(incidents):
        by_heartbeat.setdefault(incident["heartbeat"], []).append(incident)
    found = 0
    for each in by_heartbeat.values():
        found += sum("resolvedAt" not in before for before in each[:-1])
    return found


def _out_of_order(notifications: list[Json], first_at: dict[str, int]) -> int:
    """Ends that arrived before the first page about the same incident in the same place."""
    first_page: dict[tuple[str, str], int] = {}
    for each in notifications:
        if each["kind"] == "page" and each["id"] in first_at:
            key = (each["incident"], each["channel"])
            first_page[key] = min(first_at[each["id"]], first_page.get(key, sys.maxsize))
    ends = [each for each in notifications if each["kind"] == "resolve" and each["id"] in first_at]
    return sum(first_at[each["id"]] < first_page.get((each["incident"], each["channel"]), -1) for each in ends)


def _stored_check_ins(server: Server, heartbeats: int) -> set[int]:
    found: set[int] = set()
    for number in range(heartbeats):
        path = f"/v1/heartbeats/job-{number}/events"
        for kind in ("checkin", "checkin_unhealthy"):
            events = _all(server, path, "events", f"type={kind}")
            found |= {int(each["metadata"]["metadata"]["n"]) for each in events}
    return found


def _all(server: Server, path: str, name: str, query: str = "") -> list[Json]:
    rows: list[Json] = []
    cursor = ""
    while True:
        body = server.ask("GET", f"{path}?limit=1000&{query}{cursor}")
        rows += body[name]
        if "nextCursor" not in body:
            return rows
        cursor = f"&cursor={body['nextCursor']}"


# Telling ------------------------------------------------------------------------------------------------------------
def table(results: list[Result]) -> str:
    """The figures, one run a column."""
    names: list[tuple[str, Any]] = [  # Any: figures of different types
        ("nodes", lambda each: each.nodes),
        ("kills", lambda each: each.kills),
        ("check-ins answered", lambda each: each.check_ins),
        ("check-ins lost", lambda each: each.check_ins_lost),
        ("incidents", lambda each: each.incidents),
        ("incidents overlapping", lambda each: each.overlapping),
        ("messages", lambda each: each.messages),
        ("messages lost", lambda each: each.lost),
        ("requests that arrived", lambda each: each.requests),
        ("arrived twice", lambda each: each.duplicates),
        ("of these without a crash", lambda each: each.unexplained),
        ("out of order", lambda each: each.out_of_order),
        ("slowest start, s", lambda each: f"{each.slowest_start_s:.1f}"),
    ]
    lines = [f"{'':26}" + "".join(f"{each.database:>14}" for each in results)]
    lines += [f"{title:26}" + "".join(f"{figure(each)!s:>14}" for each in results) for title, figure in names]
    return "\n".join(lines)


def run_both(kills: int, seed: int) -> list[Result]:
    """Half of the kills on SQLite, half on PostgreSQL, one after the other."""
    results = []
    with tempfile.TemporaryDirectory(prefix="lifesign-kills-") as name:
        directory = Path(name)
        for each in ("sqlite", "postgresql"):
            (directory / each).mkdir()
        with ledger_peer(directory / "sqlite") as ledger:
            results.append(run(directory / "sqlite", ledger, database_url=None, kills=kills // 2, seed=seed))
        cluster = postgres.start()
        try:
            cluster.create_database("lifesign_kills")
            with ledger_peer(directory / "postgresql") as ledger:
                url = cluster.url("lifesign_kills")
                found = run(directory / "postgresql", ledger, database_url=url, kills=kills - kills // 2, seed=seed)
                results.append(found)
        finally:
            cluster.stop()
    return results


def main() -> int:
    """Kill, count, print; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Kill servers at random moments and count what was promised.")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=None, help="printed, so that a run can be repeated")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    results = run_both(options.kills, seed)
    sys.stdout.write(f"{table(results)}\n")
    return 0 if all(each.is_good for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
