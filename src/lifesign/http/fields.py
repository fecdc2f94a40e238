"""Field types of request bodies: strict, with the limits and words of spec "Heartbeats", section 1."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StrictBool,
    StrictStr,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from lifesign import schedule
from lifesign.clock import EpochMs, parse_timestamp

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_NO_NUL = r"^[^\x00]*$"
MAX_NAME = 200
MAX_TAG = 100
MAX_METADATA_BYTES = 16_384
MAX_METADATA_DEPTH = 16


# Faults that somebody may want to tell apart by more than their words.
OUT_OF_RANGE = "out_of_range"
CONTROL_CHARACTERS = "control_characters"


class Body(BaseModel):
    """A request body: unknown fields are ignored, `null` is refused unless a field says otherwise."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    def given(self) -> set[str]:
        """The names of the fields the caller sent."""
        return self.model_fields_set


# Any: pydantic's own way to say "a default that is not of the field's type": absent is not null.
def optional(description: str = "", examples: list[Any] | None = None) -> Any:
    """A field that may be absent (then None) but not null."""
    return Field(default=None, description=description or None, examples=examples, json_schema_extra=_without_default)


def _without_default(schema: dict[str, Any]) -> None:
    schema.pop("default", None)


@dataclass(frozen=True, slots=True)
class Integer:
    """Annotation of an integer from `low` to `high`: `60.0` is one, `true` and `"60"` are not."""

    low: int
    high: int

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self._check)

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "integer", "minimum": self.low, "maximum": self.high}

    def _check(self, value: object) -> int:
        # bool is an int to Python, and infinity is a float without being a number of seconds.
        if isinstance(value, bool) or not isinstance(value, int | float) or not float(value).is_integer():
            raise PydanticCustomError("int_type", "must be an integer")
        if not self.low <= value <= self.high:
            raise PydanticCustomError(OUT_OF_RANGE, f"must be between {self.low} and {self.high}")
        return int(value)


@dataclass(frozen=True, slots=True)
class Line:
    """Annotation of one trimmed line of 1 to `longest` characters, without control characters."""

    longest: int

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        # The length counts once trimmed, so it stands in the pattern.
        never = r"\x00-\x1f\x7f-\x9f\u2028\u2029"
        pattern = rf"^\s*[^\s{never}]([^{never}]{{0,{self.longest - 2}}}[^\s{never}])?\s*$"
        return {"type": "string", "minLength": 1, "pattern": pattern}

    def _check(self, value: str) -> str:
        value = value.strip()
        if not 1 <= len(value) <= self.longest:
            raise PydanticCustomError(OUT_OF_RANGE, f"must be 1 to {self.longest} characters")
        if has_control_characters(value):
            raise PydanticCustomError(CONTROL_CHARACTERS, "must not contain control characters")
        return value


@dataclass(frozen=True, slots=True)
class LongText:
    """Annotation of any text of at most `longest` characters, without U+0000."""

    longest: int

    def __get_pydantic_core_schema__(self, _source: Any, _handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, core_schema.str_schema(strict=True))

    def __get_pydantic_json_schema__(self, _schema: CoreSchema, _handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"type": "string", "maxLength": self.longest, "pattern": _NO_NUL}

    def _check(self, value: str) -> str:
        if len(value) > self.longest:
            raise PydanticCustomError(OUT_OF_RANGE, f"must be at most {self.longest} characters")
        return without_nul(value)


def without_nul(value: str) -> str:
    """`value`, which holds no U+0000: PostgreSQL cannot even be asked for it. Raises ValueError."""
    if "\x00" in value:
        raise ValueError("must not contain U+0000")
    return value


def has_control_characters(value: str) -> bool:
    """Whether `value` holds a line break or any other control character."""
    return _CONTROL.search(value) is not None


def one_line(value: str) -> str:
    """`value` as what may have no control characters: a blank for each run of them and of blanks, none at the ends."""
    spaced = _CONTROL.sub(" ", value)
    return " ".join(spaced.split()) if spaced != value else value.strip()


def is_tag(value: str) -> bool:
    """Whether a heartbeat may have such a tag."""
    return 1 <= len(value) <= MAX_TAG and not any(each.isspace() or each < " " or each == "\x7f" for each in value)


def _tag(value: str) -> str:
    if not is_tag(value):
        msg = "must be 1 to 100 characters without whitespace"
        raise ValueError(msg)
    return value


def _timezone(value: str) -> str:
    if not schedule.is_timezone(value):
        msg = "is not an IANA time zone"
        raise ValueError(msg)
    return value


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if _depth(value) > MAX_METADATA_DEPTH:
        msg = f"must be at most {MAX_METADATA_DEPTH} levels deep"
        raise ValueError(msg)
    if len(orjson.dumps(value)) > MAX_METADATA_BYTES:
        msg = f"must be at most {MAX_METADATA_BYTES} bytes as compact JSON"
        raise ValueError(msg)
    if _has_nul(value):
        msg = "must not contain U+0000"
        raise ValueError(msg)
    return value


def _depth(value: Any) -> int:  # Any: JSON
    """Levels of nesting; level by level, because hostile JSON is nested deeper than Python recurses."""
    depth, level = 0, [value]
    while nested := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [member for each in nested for member in (each.values() if isinstance(each, dict) else each)]
    return depth


def _has_nul(value: Any) -> bool:  # Any: JSON, of bounded depth
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(each) for key, each in value.items())
    return isinstance(value, list) and any(_has_nul(each) for each in value)


Name = Annotated[str, Line(MAX_NAME)]
Origin = Annotated[str, Line(64)]
"""Who makes an object, in their own word; `lifesign apply` says `apply`."""
Ref = Annotated[StrictStr, AfterValidator(without_nul), WithJsonSchema({"type": "string", "pattern": _NO_NUL})]
"""The id of an object; whether there is one the database knows."""
Bool = StrictBool
Timezone = Annotated[
    StrictStr, AfterValidator(_timezone), WithJsonSchema({"type": "string", "examples": ["Europe/Berlin"]})
]
Tag = Annotated[
    StrictStr, AfterValidator(_tag), WithJsonSchema({"type": "string", "pattern": r"^[^\s\x00-\x20\x7f\x85]{1,100}$"})
]
_DATE_TIME = {"type": "string", "format": "date-time"}
Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
"""A caller's own JSON object, kept with what it came with."""
Timestamp = Annotated[EpochMs, BeforeValidator(parse_timestamp), WithJsonSchema(_DATE_TIME)]


def example_id(prefix: str) -> str:
    """An id as examples show it: of the right form, and of no object."""
    return f"{prefix}_0199e6a1b2c37d4e8f00112233445566"
