"""What a command may end with besides success. Each is one clear line for a person, and an exit code for a script."""

from typing import ClassVar


class CommandFailed(Exception):
    """The command was understood and did not work."""

    exit_code: ClassVar[int] = 1


class WrongUsage(CommandFailed):
    """The command line or the environment is wrong; nothing was tried."""

    exit_code = 2


class Unreachable(CommandFailed):
    """Nobody answered at the address of the server."""

    exit_code = 3


class Refused(CommandFailed):
    """The server understood and said no. Further lines name each faulty field."""

    exit_code = 4

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status
