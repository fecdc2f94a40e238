"""Commands and servers as processes that need not load Lifesign: forks of one process that has.

Loading takes half a second of the processor for each command, two for each server, and a test run has a thousand of
the one and hundreds of the other. A fork has its own arguments, variables, directory, streams and end, like any
process; it can be stopped, killed and waited for. What loading itself does is left to tests that start Python anew
(`test_startup.py`), and to the servers, demos and watching commands that are started that way.
"""

import array
import atexit
import contextlib
import functools
import gc
import importlib
import io
import json
import os
import pkgutil
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, NoReturn

_MAX_REQUEST = 1 << 20
_NUMBERS = 4


@dataclass(slots=True)
class Forked:
    """One of the processes; asked and told like a `subprocess.Popen`."""

    pid: int
    returncode: int | None = None
    """How it ended, as subprocess tells it: a signal is negative; None before somebody has waited or polled."""
    _told: socket.socket = field(kw_only=True, repr=False)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end. Raises subprocess.TimeoutExpired; the process goes on."""
        if self.returncode is None:
            self._told.settimeout(timeout)
            try:
                self.returncode = int(self._told.recv(64))
            except (TimeoutError, BlockingIOError):
                raise subprocess.TimeoutExpired(["lifesign"], timeout or 0) from None
            self._told.close()
        return self.returncode

    def poll(self) -> int | None:
        """How it ended; None as long as it runs."""
        try:
            return self.wait(0)
        except subprocess.TimeoutExpired:
            return None

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Forks:
    """The process that has loaded everything; made at its first use."""

    def __init__(self, env: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        self._socket = ours
        # One thread: a fork of more would have locks that nobody ever releases.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.forked", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**env, **single, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self.close)

    def start(
        self,
        arguments: Sequence[str],
        env: Mapping[str, str],
        streams: tuple[IO[Any], IO[Any], IO[Any]],  # Any: of texts or of bytes, only their numbers count
        *,
        directory: Path | None = None,
    ) -> Forked:
        """Run `lifesign`. Threads may start several at a time.

        streams: its input, output and errors, which stay the caller's to close.
        """
        asked = {"arguments": list(arguments), "env": dict(env), "directory": str(directory or Path.cwd())}
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                numbers = array.array("i", [each.fileno() for each in (*streams, theirs)])
                self._socket.sendmsg([json.dumps(asked).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
            return Forked(int(ours.recv(64)), _told=ours)
        except BaseException:
            ours.close()
            raise

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """Run `lifesign` to its end; its exit code, and what it wrote. Raises TimeoutExpired, after killing it."""
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            process = self.start(arguments, env, (given, out, err))
            try:
                code = process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait()


@functools.cache
def forks() -> Forks:
    """The one of this process of the test run."""
    return Forks({name: value for name, value in os.environ.items() if not name.startswith("LIFESIGN_")})


def _serve(requests: socket.socket) -> None:
    """Fork for each request, until nobody asks any more."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # they need not be waited for
    while True:
        request, ancillary, _, _ = requests.recvmsg(_MAX_REQUEST, socket.CMSG_SPACE(_NUMBERS * 4))
        if not request:
            return
        numbers = array.array("i")
        for _, _, content in ancillary:
            numbers.frombytes(content)
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(request), numbers[:-1], socket.socket(fileno=numbers[-1]))
        for each in numbers:
            os.close(each)


def _watch(asked: Mapping[str, object], streams: "array.array[int]", told: socket.socket) -> NoReturn:
    """Fork once more, and tell how that ended."""
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        pid = os.fork()
        if pid == 0:
            told.close()
            _become(asked, streams)
        told.send(b"%d" % pid)
        _, status = os.waitpid(pid, 0)
        # As subprocess tells it: a signal is negative.
        with contextlib.suppress(BrokenPipeError):
            told.send(b"%d" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)


def _become(asked: Mapping[str, object], streams: "array.array[int]") -> NoReturn:
    code = 1
    try:
        for number, each in enumerate(streams):
            os.dup2(each, number)
            os.close(each)
        sys.stdin, sys.stdout, sys.stderr = (
            io.TextIOWrapper(open(number, how, closefd=False), errors=errors, line_buffering=number == 2)  # noqa: SIM115 - to its end
            for number, how, errors in ((0, "rb", "strict"), (1, "wb", "strict"), (2, "wb", "backslashreplace"))
        )
        os.chdir(str(asked["directory"]))
        os.environ.clear()
        os.environ.update(asked["env"])  # type: ignore[call-overload]  # texts, by `Forks.run`
        sys.argv = ["lifesign", *asked["arguments"]]  # type: ignore[misc]  # texts, by `Forks.run`
        signal.signal(signal.SIGINT, signal.default_int_handler)
        runpy.run_module("lifesign", run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            sys.stderr.write(f"{end.code}\n")
    except BaseException:  # noqa: BLE001 - what Python itself would do with it
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            atexit._run_exitfuncs()  # noqa: SLF001 - os._exit, which a fork must end with, leaves them out
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _load() -> None:
    """Load all that any command may need."""
    package = importlib.import_module("lifesign")
    for each in pkgutil.walk_packages(package.__path__, "lifesign."):
        # What needs an extra that is not there is not loaded by a command either; migrations are Alembic's to run.
        if "__main__" not in each.name and ".migrations" not in each.name:
            with contextlib.suppress(ImportError):
                importlib.import_module(each.name)


if __name__ == "__main__":
    _load()
    gc.collect()
    gc.freeze()
    _serve(socket.socket(fileno=int(sys.argv[1])))
