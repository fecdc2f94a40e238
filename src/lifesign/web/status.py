"""What is true of public status pages: what one is made of, and what it tells of days. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import AfterValidator, Field, StrictStr

from lifesign.clock import EpochMs
from lifesign.heartbeats.past import Day
from lifesign.http.fields import Body, Bool, Line, LongText, Ref

MAX_MEMBERS = 50
MAX_TITLE = 200
MAX_DESCRIPTION = 2000
_SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{1,62})[a-z0-9]")
_DAY_S = 86_400


class StatusPageNotFound(Exception):
    """The project has no status page with this id, or there is none that is on with this address."""


class SlugTaken(Exception):
    """Another status page of this server has this address."""

    def __init__(self) -> None:
        super().__init__("is the address of another status page of this server")


@dataclass(frozen=True, slots=True)
class StatusPage:
    """A page that everybody may see while it is on. heartbeats: ids, in the order in which they are shown."""

    id: str
    project_id: str
    slug: str
    title: str
    description: str
    is_on: bool
    heartbeats: tuple[str, ...]
    created_at: EpochMs
    updated_at: EpochMs | None


def _slug(value: str) -> str:
    if not _SLUG.fullmatch(value):
        raise ValueError("must be 3 to 64 lower-case letters, digits and hyphens, with no hyphen at its ends")
    return value


class Wanted(Body):
    """What a person says of a status page. members: ids or slugs of heartbeats, ids or keys of systems."""

    title: Annotated[str, Line(MAX_TITLE)]
    slug: Annotated[StrictStr, AfterValidator(_slug)]
    description: Annotated[str, LongText(MAX_DESCRIPTION)] = ""
    members: Annotated[list[Ref], Field(min_length=1, max_length=MAX_MEMBERS)]
    is_on: Bool = False


def up_share(days: Sequence[Day]) -> str:
    """How much of these days no incident was open, rounded down; empty when nothing is known of them."""
    known = [each for each in days if each.state != "unknown"]
    if not known:
        return ""
    down_s = sum(each.down_s for each in known)
    # Rounded down: only what never failed is 100 %.
    thousandths = (len(known) * _DAY_S - min(down_s, len(known) * _DAY_S)) * 100_000 // (len(known) * _DAY_S)
    return f"{thousandths / 1000:g} %"
