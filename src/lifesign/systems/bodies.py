"""What people and machines send about systems, and the words for what is wrong with it."""

import re
from typing import Annotated, Any, TypeVar

import orjson
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictStr, ValidationError, WithJsonSchema
from pydantic_core import ErrorDetails, PydanticCustomError

from lifesign.http.fields import CONTROL_CHARACTERS, OUT_OF_RANGE, Integer, LongText, Name, Origin, Ref, optional
from lifesign.http.validation import field_path
from lifesign.systems import rules
from lifesign.systems.rules import MAX_SHOWN_VALUE, Definition, Flaw, ValidationFailed, Word

M = TypeVar("M", bound=BaseModel)

MAX_TAGS = 20
MIN_INTERVAL_S, MAX_INTERVAL_S = 10, 86_400
MIN_SECRET, MAX_SECRET = 32, 256
TAG = re.compile(r"[A-Za-z0-9_.:-]{1,50}")
EXAMPLE_ID = "4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7"
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


def _uuid(value: str) -> str:
    normalized = rules.normalized_ref(value)
    if normalized is None or normalized != value.lower():
        raise ValueError("must be a UUID")
    return normalized


def _secret(value: str) -> str:
    if not MIN_SECRET <= len(value) <= MAX_SECRET:
        raise PydanticCustomError(OUT_OF_RANGE, "must be 32 to 256 characters")
    if not _PRINTABLE.fullmatch(value):
        raise ValueError("must be printable ASCII characters")
    return value


SystemId = Annotated[
    StrictStr,
    AfterValidator(_uuid),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"}),
]
Secret = Annotated[
    StrictStr,
    AfterValidator(_secret),
    WithJsonSchema({"type": "string", "minLength": MIN_SECRET, "maxLength": MAX_SECRET, "pattern": "^[ -~]*$"}),
]
Tags = Annotated[list[Annotated[StrictStr, Field(pattern=f"^{TAG.pattern}$")]], Field(max_length=MAX_TAGS)]
Interval = Annotated[int, Integer(MIN_INTERVAL_S, MAX_INTERVAL_S)]


class SystemChanges(BaseModel):
    """Any field of a system."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = optional()
    type: Annotated[str, LongText(64)] = optional("Free text.", ["server"])
    fqdn: Annotated[str, LongText(253)] = optional("Free text.", ["db1.example.org"])
    notes: Annotated[str, LongText(2000)] = optional()
    tags: Tags = optional("Kept sorted, each once.", [["prod", "db"]])
    interval: Interval | None = optional("Seconds between its reports; null: as the server's settings say.")
    policy: Ref | None = optional("Of the project; null: none.")


class NewSystem(SystemChanges):
    """What a system is made of. `id` and `secret` are for machines that have theirs already."""

    id: SystemId = optional("A UUID; made when omitted.")
    name: Name = Field(examples=["db1"])
    secret: Secret = optional("Made when omitted.")
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


# The order in which faults are told.
_ORDER = ("id", "name", "type", "fqdn", "notes", "tags", "interval", "policy", "secret", "origin")

# Bodies to paste, by what they show.
NEW_SYSTEMS: dict[str, dict[str, Any]] = {
    "a machine": {"name": "db1", "type": "server", "fqdn": "db1.example.org", "tags": ["prod", "db"]},
    "that reports every minute": {"name": "edge router", "interval": 60},
}


def definition_of(body: NewSystem) -> Definition:
    """What a new system is to be."""
    return Definition(**changes_of(body))


def changes_of(body: SystemChanges) -> dict[str, Any]:
    """The fields of a definition that a body names, with their values."""
    values: dict[str, Any] = {
        "name": ("name", body.name),
        "type": ("type", body.type),
        "fqdn": ("fqdn", body.fqdn),
        "notes": ("notes", body.notes),
        "tags": ("tags", tuple(sorted(set(body.tags or ())))),
        "interval": ("interval_s", body.interval),
        "policy": ("policy_id", body.policy),
    }
    return {field: value for name, (field, value) in values.items() if name in body.model_fields_set}


def body_of(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises ValidationFailed on key `body`."""
    if not raw.strip():
        raise ValidationFailed(Flaw("body", "required"))
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValidationFailed(Flaw("body", "invalid_format")) from error
    if not isinstance(value, dict):
        raise ValidationFailed(Flaw("body", "invalid_type", shown_value(value)))
    return value


def checked(model: type[M], raw: bytes) -> M:
    """The body as a `model`. Raises ValidationFailed with every fault, in the order of the fields."""
    try:
        return model.model_validate(body_of(raw))
    except ValidationError as error:
        found = [(each["loc"], _flaw(model, each)) for each in error.errors(include_url=False)]
    raise ValidationFailed(*(flaw for _, flaw in sorted(found, key=lambda each: _rank(each[0]))))


def _rank(loc: tuple[int | str, ...]) -> int:
    return _ORDER.index(str(loc[0])) if loc and loc[0] in _ORDER else len(_ORDER)


_WORDS: dict[str, Word] = {
    "missing": "required",
    "extra_forbidden": "unknown_field",
    OUT_OF_RANGE: "out_of_range",
    "too_long": "out_of_range",
    CONTROL_CHARACTERS: "invalid_format",
    "string_pattern_mismatch": "invalid_format",
    "string_unicode": "invalid_format",
    "value_error": "invalid_format",
}


def _flaw(model: type[BaseModel], detail: ErrorDetails) -> Flaw:
    path, value = field_path(detail["loc"]), detail["input"]
    word = _WORDS.get(detail["type"], "invalid_type")
    field = model.model_fields.get(path)
    if field is not None and field.is_required() and (value is None or (isinstance(value, str) and not value.strip())):
        word = "required"
    shows = detail["type"] != "missing" and path != "secret"
    return Flaw(path, word, shown_value(value) if shows else "")


def shown_value(value: Any) -> str:  # Any: JSON
    """A refused value as text: a string as it is, anything else as compact JSON."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return text[:MAX_SHOWN_VALUE]


class SystemHeartbeat(BaseModel):
    """Proof of life. Other fields are ignored."""

    system_id: str = Field(description="The sender's own id.", min_length=1, max_length=255, examples=[EXAMPLE_ID])


_MAX_SYSTEM_ID = 255


def reported_id(raw: bytes) -> str:
    """The `system_id` of a heartbeat's body. Raises ValidationFailed.  Source: spec "Systems", section 2.2."""
    body = body_of(raw)
    value = body.get("system_id")
    if value is None or (isinstance(value, str) and not value.strip()):
        raise ValidationFailed(Flaw("system_id", "required", shown_value(value) if "system_id" in body else ""))
    if not isinstance(value, str):
        raise ValidationFailed(Flaw("system_id", "invalid_type", shown_value(value)))
    if len(value) > _MAX_SYSTEM_ID:
        raise ValidationFailed(Flaw("system_id", "invalid_format", shown_value(value)))
    return value
