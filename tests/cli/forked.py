"""Commands as processes that need not load Lifesign: forks of one process that has.

Loading takes half a second of the processor for each command, and a test run gives a thousand of them. A fork has its
own arguments, variables, directory, streams and end, like any process. What loading itself does is left to tests that
start Python anew (`test_startup.py`), and to the servers and watching commands that are started that way.
"""

import array
import atexit
import contextlib
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
from pathlib import Path
from typing import NoReturn

_MAX_REQUEST = 1 << 20
_NUMBERS = 4


class Forks:
    """The process that has loaded everything; made at its first use."""

    def __init__(self, env: Mapping[str, str]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MAX_REQUEST)
        self._socket = ours
        # One thread: a fork of more would have locks that nobody ever releases.
        single = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.cli.forked", str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env={**env, **single, "PYTHONPATH": os.pathsep.join(sys.path)},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        atexit.register(self.close)

    def run(
        self, arguments: Sequence[str], env: Mapping[str, str], stdin: bytes, timeout_s: float
    ) -> tuple[int, bytes, bytes]:
        """Run `lifesign` to its end; its exit code, and what it wrote. Raises TimeoutError, after killing it.

        Threads may run several at a time.
        """
        request = json.dumps({"arguments": list(arguments), "env": dict(env), "directory": str(Path.cwd())}).encode()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours, tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            given.write(stdin)
            given.seek(0)
            with theirs:
                numbers = array.array("i", [each.fileno() for each in (given, out, err, theirs)])
                self._socket.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, numbers)])
            pid = int(ours.recv(64))
            ours.settimeout(timeout_s)
            try:
                code = int(ours.recv(64))
            except TimeoutError:
                os.kill(pid, signal.SIGKILL)
                raise
            out.seek(0)
            err.seek(0)
            return code, out.read(), err.read()

    def close(self) -> None:
        """End the process."""
        self._socket.close()
        self._process.wait()


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
