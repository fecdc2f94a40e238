"""What every page says first: what nobody attends to, what cannot be told, and when Lifesign itself was away."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.bots import project_settings as bots
from lifesign.channels import service as channels
from lifesign.channels.rules import ChannelType
from lifesign.clock import EpochMs
from lifesign.engine.alive import last_blind
from lifesign.incidents import service as incidents

# So long it is said that nobody listened for a while.
BLIND_SHOWN_MS = 86_400_000
_NAMED = 3


class BrokenChannel(NamedTuple):
    """A channel that its provider refuses for good."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Banner:
    """unattended: ids of open incidents; broken: how many, and the first; blind: from when to when nobody listened.

    locked_out: types of channels whose gateway refuses this server's own login.
    """

    unattended: Sequence[str] = ()
    broken_count: int = 0
    broken: Sequence[BrokenChannel] = ()
    locked_out: Sequence[ChannelType] = ()
    blind: tuple[EpochMs, EpochMs] | None = None
    stopped_at: EpochMs | None = None

    def __bool__(self) -> bool:
        """Whether there is anything to say."""
        is_trouble = self.unattended or self.broken_count or self.locked_out or self.blind
        return bool(is_trouble or self.stopped_at is not None)


def banner_of(conn: Connection, project_id: str, now: EpochMs) -> Banner:
    """What there is to say in a project."""
    broken = channels.broken_of(conn, project_id)
    blind = last_blind(conn)
    is_recent = blind is not None and blind.to_at > now - BLIND_SHOWN_MS
    return Banner(
        incidents.unattended_of(conn, project_id),
        len(broken),
        [BrokenChannel(each.id, each.name) for each in broken[:_NAMED]],
        channels.locked_out(conn, project_id),
        (blind.from_at, blind.to_at) if is_recent and blind is not None else None,
        bots.settings_of(conn, project_id).stopped_at,
    )
