"""What people type, as the values the API wants: durations, times, JSON, steps of a policy, secrets from elsewhere."""

import json
import re
import sys
from pathlib import Path
from typing import Any

from lifesign.cli.errors import WrongUsage

_UNITS_S = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(?:(\d+)w)?(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_MAX_DIGITS = 12
_STDIN = "-"

# Any, throughout this package: JSON on its way to the server or back.
Json = Any


def seconds(text: str, option: str) -> int:
    """Whole seconds of `90`, `90s`, `5m`, `1h30m`, `2d` or `1w`. Raises WrongUsage, naming `option`."""
    wanted = text.strip().lower()
    if len(wanted) > _MAX_DIGITS or not wanted.isascii():
        raise _bad_duration(text, option)
    if wanted.isdigit():
        return int(wanted)
    match = _DURATION.fullmatch(wanted)
    if not wanted or match is None:
        raise _bad_duration(text, option)
    return sum(int(count) * unit for count, unit in zip(match.groups(), _UNITS_S.values(), strict=True) if count)


def moment(text: str, option: str) -> str:
    """RFC 3339 of an instant, or of now plus a duration such as `30d`. Raises WrongUsage."""
    from datetime import datetime

    from lifesign.clock import EpochMs, SystemClock, from_datetime, rfc3339

    try:
        given = datetime.fromisoformat(text)
    except ValueError:
        given = None
    # `20260401` is a date to Python, and a number of seconds to everybody else here.
    if given is None or text.isdigit():
        try:
            wait_s = seconds(text, option)
        except WrongUsage:
            raise WrongUsage(
                f"{option}: {text!r} is neither a time nor a duration; write for example 2030-12-31T18:00:00Z or 30d"
            ) from None
        return rfc3339(EpochMs(SystemClock().now() + wait_s * 1000))
    if given.tzinfo is None:
        whole = f"{text}T00:00:00Z" if len(text) == len("2030-12-31") else f"{text}Z"
        raise WrongUsage(f"{option}: {text!r} has no offset from UTC; write for example {whole}")
    return rfc3339(from_datetime(given))


def plainly(message: str) -> str:
    """What the parser says of a value, in our words."""
    return (
        message.replace("Value error, ", "")
        .replace("Input should be", "must be")
        .replace("input should be", "must be")
        .replace(", unable to parse string as an integer", "")
        .replace(", unable to parse string as a number", "")
    )


def json_object(text: str, option: str) -> dict[str, Json]:
    """A JSON object: as it is, from a file as `@FILE`, or from standard input as `-`. Raises WrongUsage."""
    value = json_value(text, option)
    if not isinstance(value, dict):
        raise WrongUsage(f'{option}: must be a JSON object such as \'{{"key": "value"}}\'')
    return value


def json_value(text: str, option: str) -> Json:
    """Any JSON, from where `json_object` takes it. Raises WrongUsage."""
    if text == _STDIN or text.startswith("@"):
        text = file_text(text.removeprefix("@"), option)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise WrongUsage(f"{option}: is not JSON: {error}") from None


def file_text(name: str, option: str) -> str:
    """What a file holds, or standard input as `-`. Raises WrongUsage."""
    try:
        content = sys.stdin.buffer.read() if name == _STDIN else Path(name).read_bytes()
        return content.decode()
    except OSError as error:
        raise WrongUsage(f"{option}: cannot read {name}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise WrongUsage(f"{option}: {name} is not UTF-8 text") from None


def secret(value: str | None, file: str | None, option: str) -> str | None:
    """A secret from its option, its variable, or the file that `<option>-file` names. Raises WrongUsage."""
    # The file wins over the value, which may come from an environment that was set long ago and elsewhere.
    return value if file is None else file_text(file, f"{option}-file").strip()


def required_secret(value: str | None, file: str | None, option: str, variable: str) -> str:
    """As `secret`, but there must be one. Raises WrongUsage."""
    found = secret(value, file, option)
    if not found:
        raise WrongUsage(f"give {option}, {option}-file FILE (- is standard input) or the variable {variable}")
    return found


def step(text: str) -> dict[str, Json]:
    """A step of a policy from `CHANNEL[,CHANNEL][:wait=5m][:message=TEXT]`; the message is last. Raises WrongUsage."""
    channels, _, rest = text.partition(":")
    wanted: dict[str, Json] = {"channels": [each.strip() for each in channels.split(",") if each.strip()]}
    if not wanted["channels"]:
        raise WrongUsage(f"--step: {text!r} names no channel; write CHANNEL[,CHANNEL][:wait=5m][:message=TEXT]")
    while rest:
        name, has_value, value = rest.partition("=")
        if name == "message" and has_value:
            # The rest belongs to the message, whatever colons it has.
            return wanted | {"message": value}
        value, _, rest = value.partition(":")
        if name != "wait" or not has_value:
            raise WrongUsage(f"--step: does not know {name!r}; write CHANNEL[,CHANNEL][:wait=5m][:message=TEXT]")
        wanted["wait"] = seconds(value, "--step wait")
    return wanted


def headers(texts: list[str], option: str) -> dict[str, str]:
    """HTTP headers from `Name: value` texts. Raises WrongUsage."""
    pairs = [text.partition(":") for text in texts]
    if any(not colon for _, colon, _ in pairs):
        raise WrongUsage(f"{option}: must look like 'Name: value'")
    return {name.strip(): value.strip() for name, _, value in pairs}


def given(**values: Json) -> dict[str, Json]:
    """The members that have a value: what was not said is not sent."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def _bad_duration(text: str, option: str) -> WrongUsage:
    return WrongUsage(f"{option}: {text!r} is not a duration; write for example 90, 90s, 5m, 1h30m or 2d")
