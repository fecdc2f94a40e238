"""A run told to the server while its command runs: begun, kept alive within its lease, ended.

A command that is over before it was begun needs no run: one check-in tells as much.

All of it happens beside the command. A server that is away delays nothing and fails nothing: the run is begun later,
or at the end.
"""

import secrets
import threading
import time
from collections.abc import Callable

from lifesign.cli.checkin import TOTAL_S, TRY_S, Proof, check_in, within_total
from lifesign.cli.errors import CommandFailed, Unreachable
from lifesign.cli.remote import Call, Send, encoded, segment
from lifesign.cli.values import Json, given

_RETRY_S = 5.0
# So that two reports may get lost before the lease ends.
_REPORTS_PER_LEASE = 3
_OK, _CLIENT_ERRORS, _SERVER_ERRORS, _TOO_MANY_REQUESTS = 300, 400, 500, 429


class LeasedRun:
    """One run of a job. Every call names the run by an id made here, so that repeating one does no harm."""

    def __init__(self, reference: str, lease_s: int, connect: Callable[[], Send], *, begin_after_s: float) -> None:
        self._reference = reference
        self._path = f"/v1/heartbeats/{segment(reference)}/runs"
        self._run_id = secrets.token_hex(16)
        self._lease_s = lease_s
        self._connect = connect
        self._begin_after_s = begin_after_s
        self._is_tried = False
        self._is_refused = False
        self._is_over = threading.Event()
        self._is_begun = False
        self._reporting = threading.Thread(target=self._report, name="lease", daemon=True)

    def begin(self) -> None:
        """Report from now on."""
        self._reporting.start()

    def end(self, *, ok: bool, metadata: dict[str, Json]) -> None:
        """Tell the end; the beginning as well, if that could not be told yet. Raises CommandFailed, WrongUsage.

        A run that was never begun, or was refused, is told as a check-in.
        """
        self._is_over.set()
        began_at = time.monotonic()
        # To know whether the run is begun. A start that arrives after its end is refused, and begins nothing.
        self._reporting.join(TRY_S)
        left_s = TOTAL_S - (time.monotonic() - began_at)
        send = self._connect()
        if self._is_refused or (self._begin_after_s and not self._is_tried):
            check_in(send, Proof(self._reference, ok, metadata), total_s=left_s)
            return
        finish = self._call(f"/{self._run_id}/finish", given(ok=None if ok else False, metadata=metadata))
        within_total(send, [finish] if self._is_begun else [self._start(), finish], total_s=left_s)

    def _report(self) -> None:
        try:
            send = self._connect()
        except CommandFailed:
            return  # the end will say why
        self._is_over.wait(self._begin_after_s)
        while not self._is_over.is_set():
            call = self._call(f"/{self._run_id}/progress", {}) if self._is_begun else self._start()
            if not self._told(send, call):
                return
            pause_s = self._lease_s / _REPORTS_PER_LEASE
            self._is_over.wait(pause_s if self._is_begun else min(pause_s, _RETRY_S))

    def _told(self, send: Send, call: Call) -> bool:
        """Whether telling more makes sense; a refusal stays one."""
        self._is_tried = True
        try:
            status = send(call).status
        except Unreachable:
            return True
        self._is_begun = self._is_begun or status < _OK
        is_refused = _CLIENT_ERRORS <= status < _SERVER_ERRORS and status != _TOO_MANY_REQUESTS
        self._is_refused = is_refused and not self._is_begun
        return not is_refused

    def _start(self) -> Call:
        return self._call("", {"runId": self._run_id, "lease": self._lease_s})

    def _call(self, rest: str, body: dict[str, Json]) -> Call:
        return Call("POST", self._path + rest, encoded(body))
