"""Kills a server at random moments while it takes spans as fast as it can, then counts what was answered.

    python -m tests.faults.killing_spans --kills 20 --stores sqlite postgresql clickhouse

The server is a real one (`lifesign serve`), with its spans in SQLite, in PostgreSQL, or in ClickHouse within its own
process (chdb), where they go through the spool on disk. What is counted: spans that were answered and are not stored;
requests of which a part is stored; spans that are stored twice, or charged otherwise than stored. Spec "Telemetry",
sections 3.2 and 10.
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import httpx2

from tests import postgres
from tests.faults.server import Server, serving, until
from tests.harness import Json

Store = Literal["sqlite", "postgresql", "clickhouse"]
SPANS_EACH = 20
_SENDERS = 4
_STARTS_WITHIN_S = 120.0


class Load:
    """Senders that write down which spans were answered, until the server is gone. part: of all that were ever sent."""

    def __init__(self, url: str, key: str, part: int = 0) -> None:
        self.answered: set[str] = set()
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._part = part

    @contextmanager
    def running(self) -> Iterator[None]:
        with ThreadPoolExecutor(_SENDERS) as pool:
            senders = [pool.submit(self._send, number) for number in range(1, _SENDERS + 1)]
            yield
        for sender in senders:
            sender.result()  # raises what it raised

    def await_answer(self) -> None:
        """Return once something was answered."""
        until(lambda: bool(self.answered), within_s=_STARTS_WITHIN_S)

    def _send(self, sender: int) -> None:
        number = 0
        trace_id = f"{self._part:016x}{sender:016x}"
        with httpx2.Client(headers=self._headers, timeout=10, trust_env=False) as http:
            while True:
                number += 1
                ids = [f"{number:012x}{each + 1:04x}" for each in range(SPANS_EACH)]
                spans = [{"traceId": trace_id, "spanId": each, "name": "work"} for each in ids]
                body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]})
                try:
                    answer = http.post(self._url, content=body)
                except httpx2.TransportError:
                    return
                # 503: the store did not commit in time, on a busy machine; nothing was promised.
                if answer.status_code != 503:
                    assert answer.json() == {"ok": True, "accepted": SPANS_EACH, "rejected": 0}
                    self.answered |= {f"rec_{trace_id}{each}" for each in ids}


@dataclass(frozen=True, slots=True)
class Result:
    """What was counted in one run."""

    store: Store
    kills: int
    answered: int
    stored: int
    lost: int
    halves: int
    twice: int
    charged: int

    @property
    def is_good(self) -> bool:
        """Whether every promise was kept."""
        return not (self.lost or self.halves or self.twice) and self.charged == self.stored


def run(directory: Path, store: Store, *, kills: int, seed: int, database_url: str | None = None) -> Result:
    """Kill `kills` times, start once more, count."""
    chance = random.Random(seed)
    variables: dict[str, object] = {"log_level": "error", "database_url": database_url, "quota_spans": 0}
    if store == "clickhouse":
        variables["telemetry_url"] = f"chdb://{directory}/clickhouse"
    answered: set[str] = set()
    made: Json = {}
    for part in range(kills):
        with serving(directory, **variables) as server:
            made = made or cast("Json", server.request("POST", "/v1/provision", {"project_name": "shop"}).json())
            load = Load(f"{server.url}/v1/traces", made["producer_key"], part)
            with load.running():
                load.await_answer()
                time.sleep(chance.uniform(0.02, 0.8))
                server.kill()
            answered |= load.answered
    with serving(directory, **variables) as server:
        ids = stored(server, made["agent_key"])
        charged = asked(server, made["agent_key"], "/v1/dashboard")["quota"]["used"]
    # All but the place within the request.
    requests = Counter(each[:-4] for each in set(ids))
    return Result(
        store=store,
        kills=kills,
        answered=len(answered),
        stored=len(set(ids)),
        lost=len(answered - set(ids)),
        halves=sum(count != SPANS_EACH for count in requests.values()),
        twice=len(ids) - len(set(ids)),
        charged=charged,
    )


def stored(server: Server, key: str) -> list[str]:
    """The ids of all records, once nothing waits in a spool any more."""
    until(lambda: _pending(server, key) == 0, within_s=_STARTS_WITHIN_S)
    ids: list[str] = []
    cursor = ""
    while True:
        page = asked(server, key, f"/v1/telemetry?since_minutes=43200&limit=1000{cursor}")
        ids += [each["record_id"] for each in page["records"]]
        if page["next_cursor"] is None:
            return ids
        cursor = f"&cursor={page['next_cursor']}"


def _pending(server: Server, key: str) -> int | None:
    """None: the store cannot be asked yet."""
    answer = httpx2.get(f"{server.url}/v1/dashboard", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    return int(answer.json()["store"]["pending_records"]) if answer.status_code == 200 else None


def asked(server: Server, key: str, path: str) -> Json:
    answer = httpx2.get(f"{server.url}{path}", headers={"Authorization": f"Bearer {key}"}, timeout=60)
    assert answer.status_code == 200, answer.text
    return cast("Json", answer.json())


# Telling ------------------------------------------------------------------------------------------------------------
def table(results: list[Result]) -> str:
    """The figures, one run a column."""
    names: list[tuple[str, Any]] = [  # Any: figures of different types
        ("kills", lambda each: each.kills),
        ("spans answered", lambda each: each.answered),
        ("answered and lost", lambda each: each.lost),
        ("stored", lambda each: each.stored),
        ("charged", lambda each: each.charged),
        ("stored twice", lambda each: each.twice),
        ("requests stored in part", lambda each: each.halves),
    ]
    lines = [f"{'':26}" + "".join(f"{each.store:>14}" for each in results)]
    lines += [f"{title:26}" + "".join(f"{figure(each)!s:>14}" for each in results) for title, figure in names]
    return "\n".join(lines)


def run_on(store: Store, kills: int, seed: int) -> Result:
    """Kill a server on a store of its own."""
    with tempfile.TemporaryDirectory(prefix="lifesign-kills-") as name:
        if store != "postgresql":
            return run(Path(name), store, kills=kills, seed=seed)
        cluster = postgres.start(durable=True)
        try:
            cluster.create_database("lifesign_kills")
            return run(Path(name), store, kills=kills, seed=seed, database_url=cluster.url("lifesign_kills"))
        finally:
            cluster.stop()


def main() -> int:
    """Kill, count, print; 1 when a promise was broken."""
    parser = argparse.ArgumentParser(description="Kill servers that take spans, and count what was answered.")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--stores", nargs="+", choices=get_args(Store), default=get_args(Store))
    parser.add_argument("--seed", type=int, default=None, help="printed, so that a run can be repeated")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1_000_000)
    sys.stdout.write(f"seed {seed}\n")
    sys.stdout.flush()
    results = [run_on(store, options.kills, seed) for store in options.stores]
    sys.stdout.write(f"{table(results)}\n")
    return 0 if all(each.is_good for each in results) else 1


if __name__ == "__main__":
    sys.exit(main())
