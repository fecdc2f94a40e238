"""What models make of values, every fault told by field. Knows no request, so that commands can judge as well."""

from collections.abc import Iterable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lifesign.faults import MAX_FAULTS, Fault, InvalidInput

_MAX_ECHO_BYTES = 200

M = TypeVar("M", bound=BaseModel)

_WORDS = {
    "missing": "is required",
    "int_type": "must be an integer",
    "int_parsing_size": "is out of range",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def validate(model: type[M], values: dict[str, Any], *, secret: Iterable[str] = ()) -> M:
    """`values` as a `model`. Raises InvalidInput with every fault; values of `secret` fields are not echoed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        hidden = set(secret)
        details = error.errors(include_url=False)
        raise InvalidInput(*(_fault(detail, hidden) for detail in details[:MAX_FAULTS])) from None


def field_path(loc: tuple[int | str, ...]) -> str:
    """`("steps", 0, "channels", 1)` as `steps[0].channels[1]`; the whole body is `body`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path or "body"


def _fault(detail: ErrorDetails, hidden: set[str]) -> Fault:
    loc = detail["loc"]
    path = field_path(loc)
    kind = detail["type"]
    message = (
        str(detail["ctx"]["error"])
        if kind == "value_error" and "ctx" in detail
        else _WORDS.get(kind, _plain(detail["msg"]))
    )
    if kind == "missing" or (loc and loc[0] in hidden) or not is_short(detail["input"]):
        return Fault(path, message)
    return Fault(path, message, detail["input"], has_value=True)


def _plain(message: str) -> str:
    """Pydantic's sentence as the end of ours: `Input should be 'a' or 'b'` becomes `must be 'a' or 'b'`."""
    message = message.replace(" item after validation, not 0", " item").replace(" after validation", "")
    for prefix in ("Input should ", "List should ", "String should ", "Value should ", "Dictionary should "):
        if message.startswith(prefix):
            return "must " + message.removeprefix(prefix)
    return message


def is_short(value: Any) -> bool:
    """Whether a refused value is worth repeating to whoever sent it."""
    try:
        return len(orjson.dumps(value)) <= _MAX_ECHO_BYTES
    except TypeError:
        return False
