"""The server's settings, read for a command: options win over the environment."""

from typing import TYPE_CHECKING

from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.values import plainly

if TYPE_CHECKING:
    # Loading the settings costs more than a whole check-in, so that only commands that need them do.
    from lifesign.settings import Settings


def read_settings(**options: str | int | None) -> "Settings":
    """The settings. Raises WrongUsage with a line for each faulty variable, without its value."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from lifesign.settings import Settings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        # Any: options by the names of the settings, which pydantic checks.
        return Settings(**given)  # type: ignore[arg-type]  # as above
    except ValidationError as error:
        faults = [_told(fault["loc"], fault["msg"], given) for fault in error.errors(include_input=False)]
        raise WrongUsage("\n  ".join(["settings are faulty", *faults])) from None
    except SettingsError as error:
        raise WrongUsage(f"settings cannot be read: {error}") from None


def storage_failure(error: Exception) -> CommandFailed:
    """What a person is told when the database or its directory cannot be used."""
    from sqlalchemy.exc import DBAPIError

    # The cause only: the whole message of a database error quotes the statement and a link.
    text = str(error.orig) if isinstance(error, DBAPIError) else str(error)
    return CommandFailed(" ".join(text.split()) or type(error).__name__)


def _told(loc: tuple[int | str, ...], message: str, given: dict[str, str | int]) -> str:
    # What spans several settings has no place of its own, and names them itself.
    return f"{_name(str(loc[0]), given)}: {_lowered(message)}" if loc else plainly(message)


def _name(field: str, given: dict[str, str | int]) -> str:
    return f"--{field.replace('_', '-')}" if field in given else f"LIFESIGN_{field.upper()}"


def _lowered(message: str) -> str:
    message = plainly(message)
    return message[:1].lower() + message[1:]
