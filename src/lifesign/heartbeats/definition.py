"""What is said of a heartbeat: by a person, and by the server that it was on before."""

from dataclasses import dataclass
from typing import Literal

from lifesign.heartbeats.rules import Mode

Flip = Literal["firing", "resolved"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """What a person says of a heartbeat, checked field by field and as a whole."""

    name: str
    mode: Mode
    slug: str | None = None
    interval_ms: int | None = None
    schedule: str | None = None
    timezone: str = "UTC"
    grace_ms: int
    policy_id: str | None = None
    own_channels: tuple[str, ...] = ()
    namespace: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    metadata: str | None = None
    is_sticky_pause: bool = False
    tolerance_failures: int | None = None
    tolerance_window: int | None = None
    depends_on: tuple[str, ...] = ()
    """Ids or slugs as they were sent; ids once they are stored."""
    ping_rules: str | None = None
    """Which pings count, and for what, as JSON text; None: all, as they say."""
