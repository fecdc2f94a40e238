"""Streams that were asked for: from the token for one connection to the final report. In the memory of one process."""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Any, Literal

import orjson

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.vitals.rules import ServerBusy, StreamNotFound, Watch

State = Literal["waiting", "open", "finished", "expired"]

LONGEST_S = 600
MAX_MESSAGE_BYTES = 256 * 1024
STREAM_PATH = "/api/vitals/stream"
TOKEN_PREFIX = "vst_"  # noqa: S105 - how a token begins, not one
_OPEN_WITHIN_MS = 60_000
_REMEMBERED_MS = 600_000


@dataclass(frozen=True, slots=True)
class Wish:
    """What a stream is to be. heartbeat: id of what it checks in, with the key that may, when `watch` is set.

    user_id: for whom the report is kept when no key asked for the stream.
    """

    mode: str = "rest"
    method: str = "pos"
    max_s: int = 120
    is_kept: bool = False
    user_id: str = ""
    watch: Watch | None = None
    watch_project_id: str = ""
    watch_key_id: str = ""


@dataclass(slots=True)
class Session:
    """One stream. key_id: None for the demo's. last: JSON; report: the same as text, a fifth as large."""

    id: str
    wish: Wish
    key_id: int | None
    project_id: str
    created_at: EpochMs
    state: State = "waiting"
    ended_at: EpochMs | None = None
    last: dict[str, Any] | None = None
    report: bytes | None = None
    measurement_id: str | None = None

    @property
    def expires_at(self) -> EpochMs:
        """Until when it may be opened."""
        return EpochMs(self.created_at + _OPEN_WITHIN_MS)


@dataclass(slots=True)
class Sessions:
    """All streams of this process; `most_open` at once, and so many more that are remembered."""

    most_open: int
    most_waiting: int = 10_000
    _by_id: dict[str, Session] = field(default_factory=dict)
    _by_token: dict[str, str] = field(default_factory=dict)

    @property
    def open_streams(self) -> int:
        """How many streams are open."""
        return sum(each.state == "open" for each in self._by_id.values())

    def make(self, wish: Wish, *, key_id: int | None, project_id: str, now: EpochMs) -> tuple[Session, str]:
        """A session and its token, which is told once. Raises ServerBusy."""
        self._tidy(now)
        if len(self._by_id) >= self.most_open + self.most_waiting:
            raise ServerBusy
        token = TOKEN_PREFIX + secrets.token_hex(32)
        session = Session(new_id("vs", now), wish, key_id, project_id, now)
        self._by_id[session.id] = session
        self._by_token[_hash(token)] = session.id
        return session, token

    def of_key(self, session_id: str, key_id: int, now: EpochMs) -> Session:
        """A session of a key. Raises StreamNotFound."""
        self._tidy(now)
        session = self._by_id.get(session_id)
        if session is None or session.key_id != key_id:
            raise StreamNotFound
        return session

    def open(self, token: str, now: EpochMs) -> Session | None:
        """The session that a token opens: once, and in time; None otherwise. Raises ServerBusy."""
        self._tidy(now)
        session_id = self._by_token.get(_hash(token))
        session = None if session_id is None else self._by_id.get(session_id)
        if session is None or session.state != "waiting":
            return None
        if self.open_streams >= self.most_open:
            raise ServerBusy
        del self._by_token[_hash(token)]
        session.state = "open"
        return session

    def finish(self, session: Session, report: dict[str, Any] | None, now: EpochMs) -> None:
        """Its connection is over; the report is remembered for ten minutes."""
        session.state, session.ended_at = "finished", now
        session.report = None if report is None else orjson.dumps(report)

    def _tidy(self, now: EpochMs) -> None:
        for session in list(self._by_id.values()):
            if session.state == "waiting" and now > session.expires_at:
                session.state, session.ended_at = "expired", session.expires_at
            if session.ended_at is not None and now - session.ended_at > _REMEMBERED_MS:
                del self._by_id[session.id]
        if len(self._by_token) > len(self._by_id):
            self._by_token = {key: each for key, each in self._by_token.items() if each in self._by_id}


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
