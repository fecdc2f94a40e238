"""Running a command as if we were not there, while keeping the end of what it says.

The command gets our standard input itself and, unless told otherwise, pipes in place of our output, which are copied
live. Signals that ask it to end are handed on. Nothing here knows of heartbeats.
"""

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType

TAIL_BYTES = 4096
NOT_FOUND = 127
NOT_EXECUTABLE = 126
_SIGNAL_BASE = 128
_CHUNK_BYTES = 65_536
_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended. signal_name: of the signal that killed it; exit_code: what a shell would show."""

    exit_code: int
    duration_ms: int
    tail: bytes = b""
    signal_name: str | None = None


@dataclass(frozen=True, slots=True)
class NotStarted:
    """The command could not be started; exit_code: what a shell would show."""

    exit_code: int
    reason: str


@dataclass(slots=True)
class _Tail:
    """The last bytes of everything written."""

    content: bytearray = field(default_factory=bytearray)

    def add(self, chunk: bytes) -> None:
        self.content += chunk
        del self.content[:-TAIL_BYTES]


def run(command: Sequence[str], *, keep_output: bool) -> Ended | NotStarted:
    """Run `command` to its end. keep_output: False hands it our own output, so that even a terminal stays one."""
    started_at = time.monotonic()
    output = subprocess.PIPE if keep_output else None
    sys.stdout.flush()
    with _forwarding() as forwarder:
        try:
            process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - running it is the purpose
        except FileNotFoundError:
            return NotStarted(NOT_FOUND, "command not found")
        except (OSError, ValueError) as error:
            return NotStarted(NOT_EXECUTABLE, (error.strerror if isinstance(error, OSError) else None) or str(error))
        forwarder.begin(process)
        tail = _Tail()
        _copy_until_it_ends(process, forwarder.wakeup, tail)
    duration_ms = int((time.monotonic() - started_at) * 1000)
    code = process.returncode
    if code >= 0:
        return Ended(code, duration_ms, bytes(tail.content))
    return Ended(_SIGNAL_BASE - code, duration_ms, bytes(tail.content), _signal_name(-code))


class _Forwarder:
    """Hands signals on, from the first moment: those that come before the command has started wait for it."""

    def __init__(self, wakeup: socket.socket) -> None:
        self.wakeup = wakeup
        self._process: subprocess.Popen[bytes] | None = None
        self._waiting: list[int] = []

    def begin(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process
        for number in self._waiting:
            process.send_signal(number)

    def handle(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGINT and _is_in_foreground():
            return  # the terminal has sent it to the command as well, which must not see it twice
        if self._process is None:
            self._waiting.append(number)
        else:
            self._process.send_signal(number)


@contextlib.contextmanager
def _forwarding() -> Iterator[_Forwarder]:
    ours, pythons = socket.socketpair()
    with ours, pythons:
        ours.setblocking(False)
        pythons.setblocking(False)
        forwarder = _Forwarder(ours)
        # What was ignored stays ignored: under nohup a hang-up reaches neither us nor the command.
        numbers = [number for number in _FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, forwarder.handle) for number in numbers}
        before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
        old_wakeup = signal.set_wakeup_fd(pythons.fileno(), warn_on_full_buffer=False)
        try:
            yield forwarder
        finally:
            signal.set_wakeup_fd(old_wakeup)
            for number, handler in before.items():
                signal.signal(number, handler)


def _copy_until_it_ends(process: subprocess.Popen[bytes], wakeup: socket.socket, tail: _Tail) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(wakeup, selectors.EVENT_READ)
        pipes = {}
        for pipe, ours in ((process.stdout, 1), (process.stderr, 2)):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
                selector.register(pipe, selectors.EVENT_READ)
                pipes[pipe.fileno()] = (pipe, ours)
        while process.poll() is None:
            for key, _ in selector.select():
                if key.fd not in pipes:
                    with contextlib.suppress(BlockingIOError):
                        wakeup.recv(_CHUNK_BYTES)
                elif _copy(key.fd, pipes[key.fd][1], tail, _CHUNK_BYTES) is None:
                    pipe, _ours = pipes.pop(key.fd)
                    selector.unregister(pipe)
                    pipe.close()
    for descriptor, (pipe, ours) in pipes.items():
        # Not until the end of the pipe: something the command left running in the background may hold it for days.
        left = _readable_bytes(descriptor)
        while left > 0 and (count := _copy(descriptor, ours, tail, min(left, _CHUNK_BYTES))):
            left -= count
        pipe.close()


def _copy(source: int, target: int, tail: _Tail, limit: int) -> int | None:
    """Copy what is there, up to `limit` bytes; None when nothing will ever come or go again."""
    try:
        chunk = os.read(source, limit)
    except BlockingIOError:
        return 0
    if not chunk:
        return None
    tail.add(chunk)
    try:
        _write(target, chunk)
    except OSError:
        return None  # our reader is gone: closing the pipe tells the command so, as it would have learned without us
    return len(chunk)


def _write(target: int, chunk: bytes) -> None:
    view = memoryview(chunk)
    while view:
        try:
            view = view[os.write(target, view) :]
        except BlockingIOError:  # whoever started us may have made it so
            with selectors.DefaultSelector() as selector:
                selector.register(target, selectors.EVENT_WRITE)
                selector.select()


def _readable_bytes(descriptor: int) -> int:
    counted: int = struct.unpack("i", fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)))[0]
    return counted


def _is_in_foreground() -> bool:
    """True when a Ctrl-C of the terminal reaches this process and the command alike."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIG{number}"  # a real-time signal has no name of its own
