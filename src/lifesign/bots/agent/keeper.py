"""The keeper: a small process between the server and one program, so that nothing of the program runs unwatched.

    python -I -S keeper.py <socket> <NAME=NAME=...> <program> <argument>...

It begins the program in a session of its own, and ends with the program's exit code. Over the socket it is told to
ask the program to end; when the other side of the socket is gone, for whatever reason, it kills everything.

Why not the kernel's `PR_SET_PDEATHSIG` alone: it reaches one process and not what that has begun; it follows the
thread that forked and not the process; and a program may switch it off. A socket is closed by the kernel however its
owner ends, and orphans are given to the keeper (`PR_SET_CHILD_SUBREAPER`), so it finds also what left the group. The
signal of the kernel is for the one case that is left: somebody kills the keeper.

Run by its path, without the packages of the server: it starts in 20 ms and takes 10 MiB.
"""

import ctypes
import os
import select
import signal
import sys

# Nothing more: each import is paid for by each run.

ASK = b"t"
"""What the server says to have the program asked to end."""
_NOT_STARTED = 127
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_BUFFER = 4096


def main(control: int, names: str, argv: list[str]) -> int:
    """Keep the program until it has ended or the server is gone; its exit code, negative for a signal."""
    os.set_inheritable(control, False)  # noqa: FBT003 - not ours
    adopts_orphans()
    # Python itself adds variables of the locale.
    env = {name: os.environ[name] for name in names.split("=") if name in os.environ}
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    pid, why = _begun(argv, env)
    if why:
        os.write(control, why)
        return _NOT_STARTED
    _let_go_of_streams()
    poller = select.poll()
    poller.register(control, select.POLLIN)
    poller.register(woken, select.POLLIN)
    while not _has_ended(pid):
        ready = {each for each, _ in poller.poll()}
        if woken in ready:
            os.read(woken, _BUFFER)
        if control in ready and not _heed(control, pid):
            break
    # As long as nobody has waited for the program, its number is not given to another.
    kill_group(pid)
    _, status = os.waitpid(pid, 0)
    end_orphans()
    return os.waitstatus_to_exitcode(status)


def _begun(argv: list[str], env: dict[str, str]) -> tuple[int, bytes]:
    """Start the program: its process, and the number of the error if there was one."""
    keeper = os.getpid()
    failed, failing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become(argv, env, failing, keeper)
    os.close(failing)
    # Closed without a word when the program has taken over.
    return pid, os.read(failed, _BUFFER)


def _become(argv: list[str], env: dict[str, str], failing: int, keeper: int) -> None:
    """Be the program. Does not return."""
    try:
        os.setsid()
        dies_with_parent()
        # Python ignores these, and what is ignored stays so.
        for each in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(each, signal.SIG_DFL)
        if os.getppid() == keeper:
            os.execve(argv[0], argv, env)  # noqa: S606 - of the operator, and without a shell
    except OSError as error:
        os.write(failing, str(error.errno).encode())
    finally:
        os._exit(_NOT_STARTED)


def _let_go_of_streams() -> None:
    """They are the program's alone: whoever reads them sees their end with it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for each in range(3):
        os.dup2(nowhere, each)


def _has_ended(pid: int) -> bool:
    """Whether the program has; orphans that have are waited for."""
    while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is not None:
        if ended.si_pid == pid:
            return True
        os.waitpid(ended.si_pid, 0)
    return False


def _heed(control: int, pid: int) -> bool:
    """Do what the server says; False when it is gone."""
    try:
        said = os.read(control, _BUFFER)
    except OSError:
        return False
    if said:
        _signal_group(pid, signal.SIGTERM)
    return bool(said)


def kill_group(pid: int) -> None:
    """Kill a process with its group; before it has made its group there is only itself."""
    if not _signal_group(pid, signal.SIGKILL):
        _kill(pid)


def end_orphans(known: frozenset[int] = frozenset()) -> None:
    """Kill all children but those that are known, then what is orphaned by that, until nothing is left."""
    while found := [each for each in _children() if each not in known]:
        for each in found:
            _kill(each)
        for each in found:
            os.waitpid(each, 0)


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as file:  # noqa: PTH123 - as said above
            return [int(each) for each in file.read().split()]
    except OSError:  # another system than Linux
        return []


def _signal_group(pid: int, number: signal.Signals) -> bool:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _kill(pid: int) -> None:
    try:  # noqa: SIM105 - contextlib is one more import
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def _control_process(option: int, value: int) -> None:
    """`prctl`, where there is one."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def dies_with_parent() -> None:
    """The kernel ends this process when the thread that began it ends, however that happens."""
    _control_process(_PR_SET_PDEATHSIG, signal.SIGKILL)


def adopts_orphans() -> None:
    """What is orphaned among the descendants of this process becomes its child."""
    _control_process(_PR_SET_CHILD_SUBREAPER, 1)


def _end_as(code: int) -> None:
    """End with the same code, or by the same signal. Does not return."""
    if code < 0:
        import resource  # noqa: PLC0415 - seldom needed

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code if code >= 0 else 128 - code)


if __name__ == "__main__":
    _end_as(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
