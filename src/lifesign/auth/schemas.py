"""Wire models of keys."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictStr, WithJsonSchema

from lifesign.auth.rules import KNOWN_SCOPES
from lifesign.auth.service import Keyring, Own
from lifesign.auth.store import Key
from lifesign.clock import rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, Name, Timestamp, example_id, optional

MAX_SCOPES = 50


def _known(scopes: list[str]) -> list[str]:
    unknown = [scope for scope in scopes if scope not in KNOWN_SCOPES]
    if unknown:
        raise ValueError(f"unknown: {', '.join(unknown)[:100]}; known are {', '.join(KNOWN_SCOPES)}")
    return scopes


Scopes = Annotated[
    list[StrictStr],
    Field(min_length=1, max_length=MAX_SCOPES),
    AfterValidator(_known),
    WithJsonSchema(
        {
            "type": "array",
            "items": {"type": "string", "enum": list(KNOWN_SCOPES)},
            "minItems": 1,
            "maxItems": MAX_SCOPES,
        }
    ),
]


class NewKey(Body):
    """What a key is made of."""

    name: Name = Field(examples=["deploy pipeline"])
    scopes: Scopes = optional("Omitted: all scopes of the calling key.", [["checkins:write"]])
    expiresAt: Timestamp = optional("Must lie in the future.")


# Bodies to paste, by what they show.
NEW_KEYS: dict[str, dict[str, Any]] = {
    "for jobs: may check in, nothing else": {"name": "jobs", "scopes": ["checkins:write"]},
    "for a dashboard: may read": {
        "name": "dashboard",
        "scopes": ["heartbeats:read", "policies:read", "channels:read"],
        "expiresAt": "2099-01-01T00:00:00Z",
    },
}


def shown(key: Key, keyring: Keyring) -> dict[str, Any]:  # Any: JSON
    """A key in a list."""
    last_used_at = keyring.last_used(key)
    return without_absent(
        {
            "id": key.id,
            "name": key.name,
            "prefix": key.prefix,
            "scopes": key.scopes,
            "createdAt": rfc3339(key.created_at),
            "expiresAt": key.expires_at and rfc3339(key.expires_at),
            "lastUsedAt": last_used_at and rfc3339(last_used_at),
        }
    )


def shown_own(own: Own) -> dict[str, Any]:  # Any: JSON
    """The key that asks; of the operator, who has none, what there is."""
    key = own.key
    return without_absent(
        {
            "id": own.caller.key_id,
            "name": own.caller.key_name,
            "scopes": sorted(own.caller.scopes),
            "project": own.project,
            "projectId": own.caller.project_id,
            "prefix": key and key.prefix,
            "createdAt": key and rfc3339(key.created_at),
            "expiresAt": key and key.expires_at and rfc3339(key.expires_at),
        }
    )


def shown_once(key: Key, token: str) -> dict[str, Any]:  # Any: JSON
    """A key in the answer that makes it: the only one with its token."""
    return without_absent(
        {
            "id": key.id,
            "name": key.name,
            "token": token,
            "prefix": key.prefix,
            "scopes": key.scopes,
            "createdAt": rfc3339(key.created_at),
            "expiresAt": key.expires_at and rfc3339(key.expires_at),
        }
    )


class ShownKey(Body):
    """A key in a list."""

    id: str = Field(examples=["key_0199e6a1b2c37d4e8f00112233445566"])
    name: str
    prefix: str = Field(description="The first characters of the token.")
    scopes: list[str]
    createdAt: datetime
    expiresAt: datetime = optional("Absent: never.")
    lastUsedAt: datetime = optional("Absent until used; may lag 60 s.")


class MadeKey(Body):
    """A new key; the only answer that holds its token."""

    id: str
    name: str
    token: str = Field(description="Shown here and never again.")
    prefix: str
    scopes: list[str]
    createdAt: datetime
    expiresAt: datetime = optional()


class OwnKey(Body):
    """The key that asks."""

    id: str
    name: str
    scopes: list[str]
    project: str = Field(description="Name of its project, as people call it.", examples=["default"])
    projectId: str = Field(description="Id of its project.", examples=[example_id("prj")])
    prefix: str = optional("The first characters of the token.")
    createdAt: datetime = optional()
    expiresAt: datetime = optional("Absent: never.")


class KeyList(Body):
    """Keys, oldest first. Revoked ones are gone, expired ones stay listed."""

    keys: list[ShownKey]
    nextCursor: str = optional("Present when there are more.")
