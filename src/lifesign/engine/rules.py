"""What the engine knows of itself: when nobody listened, and whether the machine's clock can be believed.

Spec "Engine", section 11. Everything is decided here and nothing is done here.
"""

from typing import NamedTuple

from lifesign.clock import EpochMs

_S = 1000
CLOCKS_DIFFER_MS = 2 * _S
"""By how much two readings of the time may differ without anybody having set a clock."""
_LONGEST_HALT_S = 60.0
FAR_AHEAD_MS = 24 * 3600 * _S
_UNSURE_S = 3600.0


class Watch(NamedTuple):
    """How long a silence of every node must be to count, and how long heartbeats are waited for after it."""

    blind_after_ms: int
    min_hold_ms: int
    max_hold_ms: int


class Span(NamedTuple):
    """Time in which no node listened."""

    from_at: EpochMs
    to_at: EpochMs


def blind_span(last_alive: EpochMs | None, now: EpochMs, blind_after_ms: int) -> Span | None:
    """The time without any node, when it was too long; `last_alive` is None on a database that never had one."""
    if last_alive is None or now - last_alive <= blind_after_ms:
        return None
    return Span(last_alive, now)


def joined(before: Span | None, span: Span, watch: Watch) -> Span:
    """The span that counts from now on, when the one before it was `before`.

    A node that came back and was gone again before anything was waited for to its end, as one that crashes as soon as
    it starts, has listened to nobody: what was due in the first span is still waited for in the second.
    """
    if before is not None and before.to_at <= span.from_at < before.to_at + watch.min_hold_ms:
        return Span(before.from_at, span.to_at)
    return span


def believable(span: Span, now: EpochMs) -> Span:
    """The span as far as it can have been: a clock that was ahead, and has been set back, saw it end in the future."""
    return span if span.to_at <= now + CLOCKS_DIFFER_MS else Span(min(span.from_at, now), now)


class Reading(NamedTuple):
    """Both clocks at one moment: the wall clock, and seconds that never run backwards."""

    wall: EpochMs
    monotonic_s: float


def jump_ms(before: Reading, after: Reading) -> int | None:
    """How far the wall clock was set between two readings, negative for back; None when it ran as it should."""
    elapsed_ms = round((after.monotonic_s - before.monotonic_s) * _S)
    jumped = after.wall - before.wall - elapsed_ms
    return jumped if abs(jumped) > CLOCKS_DIFFER_MS else None


def is_day_unsure(since_s: float | None, now_s: float) -> bool:
    """Whether the date may still be a mistake: the clock went ahead by more than a day lately, or seems to have.

    What a wrong date makes look old would be deleted for good; whoever puts the clock right is given an hour.
    """
    return since_s is not None and now_s - since_s < _UNSURE_S


def is_halt_over(last_believed: Reading, after: Reading) -> bool:
    """Whether firing may go on after the clock was set back from `last_believed`.

    Deadlines were given out by the old time: until it comes again nothing is judged, but not for longer than a minute.
    """
    return after.wall >= last_believed.wall or after.monotonic_s - last_believed.monotonic_s >= _LONGEST_HALT_S


def is_resting(now: EpochMs, until: EpochMs, pause_ms: int) -> bool:
    """Whether a pause of so long that ends at `until` still goes on.

    Not when the clock was set back behind its beginning: it would go on until the old time comes again, in years maybe.
    """
    return until - pause_ms <= now < until
