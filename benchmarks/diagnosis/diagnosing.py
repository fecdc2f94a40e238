"""Two ways to have runs diagnosed: by the rules in this process, or by a server, over HTTP."""

import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.diagnosis.runs import Json
from lifesign.clock import EpochMs
from lifesign.diagnosis.details import details_of
from lifesign.diagnosis.facts import facts_of
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.diagnosis.preparation import Placed, key_of
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import InvalidOtlp, decode_json
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.sessions import session_of, trace_session

HOUR_MS: Final = 3_600_000
NOW: Final = EpochMs(1_767_229_200_000)
_TIMEOUT_S: Final = 120.0
_FIRST_REFUSED: Final = 400
_TOO_MANY: Final = 429


def in_process(now: Sequence[Json], before: Sequence[Json]) -> Json:
    """The packet, by the rules alone: no store, no clock."""
    since = EpochMs(NOW - HOUR_MS)
    current, messages = _placed(now, EpochMs(NOW - 1))
    baseline, _ = _placed(before, EpochMs(since - 1))
    seen = examined(facts_of(current, baseline))
    details = details_of(current, seen.wanted, messages)
    return packet_of(seen, issues_in(seen, details, ledger={}, window_start=since))


def _placed(requests: Sequence[Json], received_at: EpochMs) -> tuple[list[Placed], dict[tuple[str, str], str]]:
    records: list[Record] = []
    for request in requests:
        try:
            batch = decode_json(json.dumps(request).encode(), arrival_ns=received_at * 1_000_000)
        except InvalidOtlp as error:
            raise ValueError(f"a run is no request of OTLP: {error}") from error
        if batch.rejected:
            raise ValueError(f"spans were rejected: {batch.message}")
        records += records_of(batch.spans, received_at, slow_after=SlowAfter())
    by_trace: dict[str, list[Record]] = {}
    for record in records:
        by_trace.setdefault(record.trace_id, []).append(record)
    sessions = {trace_id: trace_session(those) for trace_id, those in by_trace.items()}
    placed = [Placed(session_of(record, sessions[record.trace_id]), record) for record in records]
    messages = {
        key_of(each): record.body.message for each, record in zip(placed, records, strict=True) if record.body.message
    }
    return placed, messages


Post = Callable[[str, Json, str | None], tuple[int, Json]]
"""Posts JSON to a path with a key, if any; the status and the JSON of the answer. Raises OSError."""


class Server:
    """A running server; each diagnosis gets a project of its own, which may need LIFESIGN_MINT_LIMIT_PER_HOUR=0."""

    def __init__(self, url: str, post: Post | None = None) -> None:
        self._url = url.rstrip("/")
        self._post = self._over_network if post is None else post

    def diagnose(self, now: Sequence[Json], before: Sequence[Json]) -> Json:
        """The packet. What arrived before cannot be sent to a clock that runs: rules that compare stay silent."""
        del before
        keys = self._asked("/v1/provision", {"project_name": f"evaluation {uuid.uuid4()}"})
        for request in now:
            self._asked("/v1/traces", request, keys["producer_key"])
        packet: Json = self._asked("/v1/runs/diagnose", {}, keys["agent_key"])["packet"]
        return packet

    def _asked(self, path: str, body: Json, key: str | None = None) -> Json:
        """The answer. Raises ValueError, naming the address and what the server says."""
        try:
            status, told = self._post(path, body, key)
        except ValueError as error:
            raise ValueError(f"{self._url}{path}: {error}") from error
        except OSError as error:
            raise ValueError(f"cannot reach {self._url}: {getattr(error, 'reason', error)}") from error
        if status >= _FIRST_REFUSED:
            hint = "; start it with LIFESIGN_MINT_LIMIT_PER_HOUR=0" if status == _TOO_MANY else ""
            raise ValueError(f"{self._url}{path}: {status}, {told.get('message', 'without a message')}{hint}")
        return told

    def _over_network(self, path: str, body: Json, key: str | None) -> tuple[int, Json]:
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": f"Bearer {key}"})
        request = urllib.request.Request(self._url + path, json.dumps(body).encode(), headers)  # noqa: S310 - as given
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as answer:  # noqa: S310 - as given
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                content = error.read()
            return error.code, json.loads(content) if content.startswith(b"{") else {}
