"""`lifesign checkin` and `lifesign run`: proof of life, from a script or around any command.

Free of the parser of the command line, which `quick` goes around.
"""

import codecs
import contextlib
import json
import re
import socket
import sys
import unicodedata

from lifesign.cli import values
from lifesign.cli.checkin import TRY_S, Proof, check_in, warning
from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.job import Ended, NotStarted, run
from lifesign.cli.lease import LeasedRun
from lifesign.cli.output import print_json
from lifesign.cli.remote import Send, over_network, required_key, segment
from lifesign.cli.values import Json, given
from lifesign.client import DEFAULT_LEASE_S

_MAX_KEY = 255
_MAX_NAME = 255
_MAX_LEASE_S = 86_400
# A command that is over sooner is told once, at its end: most are, and a second request would tell nothing more.
_QUICK_S = 1.0
# The server takes 16,384 bytes; what is cut first is the output.
_MAX_METADATA_BYTES = 16_000
_ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTINUATION_BYTE = range(0x80, 0xC0)


def check_in_once(
    reference: str,
    *,
    unhealthy: bool,
    metadata: str | None,
    idempotency_key: str | None,
    as_json: bool,
    url: str,
    key: str | None,
) -> int:
    """`lifesign checkin`."""
    if idempotency_key is not None and not _is_good_key(idempotency_key):
        raise WrongUsage(f"--idempotency-key: must be 1 to {_MAX_KEY} printable ASCII characters")
    told = None if metadata is None else values.json_object(metadata, "--metadata")
    send = over_network(url, required_key(key), timeout_s=TRY_S)
    answer = check_in(send, Proof(reference, not unhealthy, told, idempotency_key))
    if as_json:
        print_json(answer)
        return 0
    # Absolute: to tell the distance, the clock would have to be loaded, which takes as long as the check-in itself.
    deadline = answer.get("nextDeadline")
    print(
        f"{answer.get('status')}; {f'next check-in expected by {deadline}' if deadline else 'no check-in is expected'}"
    )
    return 0


def run_and_tell(
    words: list[str],
    *,
    heartbeat: str | None,
    no_output: bool,
    no_run: bool,
    lease: str | None,
    url: str,
    key: str | None,
) -> int:
    """`lifesign run`; returns the exit code of the command."""
    reference, command = _parted(words, heartbeat)
    if no_run and lease is not None:
        raise WrongUsage("--no-run and --lease exclude each other")

    def connect() -> Send:
        return over_network(url, required_key(key), timeout_s=TRY_S)

    leased = None
    if lease is not None:
        leased = LeasedRun(reference, _lease_s(lease), connect, begin_after_s=0)
    elif not no_run:
        leased = LeasedRun(reference, DEFAULT_LEASE_S, connect, begin_after_s=_QUICK_S)
    if leased is not None:
        leased.begin()
    ended = run(command, keep_output=not no_output)
    if isinstance(ended, NotStarted):
        _warn(f"cannot run {command[0]}: {ended.reason}")
    try:
        is_healthy, metadata = ended.exit_code == 0, metadata_of(command[0], ended)
        if leased is not None:
            leased.end(ok=is_healthy, metadata=metadata)
        else:
            check_in(connect(), Proof(reference, is_healthy, metadata))
    except CommandFailed as error:
        _warn(warning(error, reference))
    except KeyboardInterrupt:
        _warn(f"the check-in of {reference} was interrupted")
    except Exception as error:  # noqa: BLE001 - whatever is wrong with us, the exit code stays the command's
        _warn(f"the check-in of {reference} did not arrive: unexpected {type(error).__name__}: {error}")
    return ended.exit_code


def _warn(line: str) -> None:
    # Whoever reads our errors may be gone, as the reader of the command's output may.
    with contextlib.suppress(OSError):
        print(f"lifesign: {line}", file=sys.stderr)


def metadata_of(program: str, ended: Ended | NotStarted) -> dict[str, Json]:
    """What the server is told about a run: not the arguments, which may hold secrets; small enough to be accepted."""
    told: dict[str, Json] = {"command": clean(program)[:_MAX_NAME], "host": clean(socket.gethostname())[:_MAX_NAME]}
    if isinstance(ended, NotStarted):
        return told | {"exitCode": ended.exit_code, "error": ended.reason}
    told |= given(
        signal=ended.signal_name, exitCode=None if ended.signal_name else ended.exit_code, durationMs=ended.duration_ms
    )
    output = clean_output(ended.tail)
    while output and _bytes(told | {"output": output}) > _MAX_METADATA_BYTES:
        output = output[len(output) // 8 + 1 :]
    return told | ({"output": output} if output else {})


def clean_output(tail: bytes) -> str:
    """The end of an output as text: colours and control characters gone, line breaks and tabs kept."""
    # The cut may have gone through a character; at most three bytes of it can be left over.
    start = next((index for index, byte in enumerate(tail[:4]) if byte not in _CONTINUATION_BYTE), 0)
    text = codecs.decode(tail[start:], "utf-8", "replace")
    text = _ESCAPE_SEQUENCE.sub("", text).replace("\r\n", "\n").replace("\r", "\n")
    return "".join(each for each in text if each in "\n\t" or unicodedata.category(each) != "Cc").strip("\n")


def clean(text: str) -> str:
    """One line of valid text, whatever the file system or the network says."""
    return clean_output(text.encode("utf-8", "replace")).replace("\n", " ").replace("\t", " ")


def _parted(words: list[str], heartbeat: str | None) -> tuple[str, list[str]]:
    reference, command = (words[0] if words else None, words[1:]) if heartbeat is None else (heartbeat, words)
    if reference is None or not command:
        raise WrongUsage("write: lifesign run REF -- COMMAND [ARGUMENT]...")
    segment(reference)
    return reference, command


def _lease_s(text: str) -> int:
    found = values.seconds(text, "--lease")
    if not 1 <= found <= _MAX_LEASE_S:
        raise WrongUsage("--lease: must be from 1s to 1d")
    return found


def _is_good_key(text: str) -> bool:
    return 1 <= len(text) <= _MAX_KEY and text.isascii() and text.isprintable()


def _bytes(body: dict[str, Json]) -> int:
    return len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode())
