"""Checking in: once, so that it counts once, and again when the network or the server hiccups."""

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from lifesign.cli.errors import CommandFailed, Refused, Unreachable
from lifesign.cli.remote import Answer, Call, Send, encoded, segment, understood
from lifesign.cli.values import Json, given

TOTAL_S = 10.0
# Of one try: two slow ones and a quick one fit into the total.
TRY_S = 4.0
_PAUSES_S = (0.2, 0.5, 1.0)
_TOO_MANY_REQUESTS = 429
_SERVER_ERRORS = 500


@dataclass(frozen=True, slots=True)
class Proof:
    """A sign of life, or of the lack of it. reference: id or slug of the heartbeat."""

    reference: str
    is_healthy: bool
    metadata: dict[str, Json] | None = None
    idempotency_key: str | None = None


def check_in(send: Send, proof: Proof, *, total_s: float | None = None) -> dict[str, Json]:
    """Check in within `total_s`, trying again where that may help; return the server's answer.

    All tries carry one idempotency key, so that one whose answer got lost does not count twice.
    Raises Refused, Unreachable, CommandFailed, WrongUsage.
    """
    return within_total(send, [_call(proof)], total_s=total_s)


def within_total(send: Send, calls: Sequence[Call], *, total_s: float | None = None) -> dict[str, Json]:
    """Make calls that may be repeated, one after the other, within `total_s`; the answer to the last.

    total_s: `TOTAL_S` when not given. Raises Refused, Unreachable, CommandFailed, WrongUsage.
    """
    limit_s = TOTAL_S if total_s is None else total_s
    results: list[dict[str, Json] | BaseException] = []

    def attempt() -> None:
        give_up_at = time.monotonic() + limit_s
        try:
            results.append([_tried(send, call, give_up_at=give_up_at) for call in calls][-1])
        except Exception as error:  # noqa: BLE001 - the edge of a thread: told to the caller, whatever it is
            results.append(error)

    # A thread, because looking up a name cannot be given a time-out; a daemon, so that it never holds up the exit.
    thread = threading.Thread(target=attempt, name="check-in", daemon=True)
    thread.start()
    thread.join(limit_s)
    if not results:
        raise Unreachable(f"no answer within {limit_s:.0f} s")
    if isinstance(results[0], BaseException):
        raise results[0]
    return results[0]


def _call(proof: Proof) -> Call:
    body = given(healthy=None if proof.is_healthy else False, metadata=proof.metadata)
    return Call(
        "POST",
        f"/v1/heartbeats/{segment(proof.reference)}/checkin",
        encoded(body),
        {"Idempotency-Key": proof.idempotency_key or secrets.token_hex(16)},
    )


def _tried(send: Send, call: Call, *, give_up_at: float) -> dict[str, Json]:
    for pause_s in _PAUSES_S:
        try:
            answer = send(call)
        except Unreachable:
            wait_s = pause_s
        else:
            if answer.status < _SERVER_ERRORS and answer.status != _TOO_MANY_REQUESTS:
                return understood(answer, call.path)
            wait_s = max(pause_s, _retry_after(answer))
        if time.monotonic() + wait_s >= give_up_at:
            break
        time.sleep(wait_s)
    return understood(send(call), call.path)


def _retry_after(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0


def warning(error: CommandFailed, reference: str) -> str:
    """One line about a check-in that did not arrive."""
    first = str(error).partition("\n")[0]
    verb = "was refused" if isinstance(error, Refused) else "did not arrive"
    return f"the check-in of {reference} {verb}: {first}"
