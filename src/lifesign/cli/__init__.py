"""The command line: `lifesign ...`.

Clients of the HTTP API, an operator's commands, and the start of the server. Modules of the server are imported only
inside the commands that need them, so that a check-in from a script is quick. Owns no tables.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence

from lifesign.cli.errors import CommandFailed
from lifesign.cli.quick import command_of
from lifesign.cli.values import plainly

_FAILED = 1
_INTERRUPTED = 128 + signal.SIGINT


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code. Whatever goes wrong is told in a line on stderr, never as a traceback."""
    _never_fail_to_print()
    given = sys.argv[1:] if arguments is None else list(arguments)
    try:
        quick = command_of(given)
        code = _parsed(given) if quick is None else quick()
        sys.stdout.flush()
    except CommandFailed as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _INTERRUPTED  # whoever pressed the keys knows
    except BrokenPipeError:
        return _reader_is_gone()
    except Exception as error:  # noqa: BLE001 - the edge of the process: a person is told, whatever it is
        return _fail(f"unexpected {type(error).__name__}: {' '.join(str(error).split())}", _FAILED)
    return code


def _parsed(arguments: Sequence[str]) -> int:
    """Run a command through the full parser."""
    from typer import Abort
    from typer.exceptions import TyperException

    from lifesign.cli.app import app

    try:
        code = app(arguments, prog_name="lifesign", standalone_mode=False)
    except TyperException as error:
        return _usage(error)
    except Abort:
        return _INTERRUPTED
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int) -> int:
    from lifesign.cli.output import safe_lines

    with contextlib.suppress(OSError):
        # Whoever answered may have chosen the words.
        print(f"lifesign: {safe_lines(message)}", file=sys.stderr)
    return code


def _usage(error: Exception) -> int:
    # getattr: only what the parser raises knows its command, and those classes have no public name.
    context = getattr(error, "ctx", None)
    code = int(getattr(error, "exit_code", 2))
    message = plainly(str(getattr(error, "format_message", lambda: str(error))()))
    if type(error).__name__ == "NoArgsIsHelpError":
        return code  # the help has been printed
    hint = f" (lifesign {command} --help says more)" if context and (command := _command(context.command_path)) else ""
    first = message[:1].lower() + message[1:].rstrip(".")
    return _fail(f"{' '.join(first.split())}{hint or ' (lifesign --help says more)'}", code)


def _command(path: str) -> str:
    return path.partition(" ")[2]


def _never_fail_to_print() -> None:
    """Names may have any character, and a terminal may know few; better an escape than a traceback."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def _reader_is_gone() -> int:
    # Python flushes standard output once more at exit, and would complain.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return _FAILED
