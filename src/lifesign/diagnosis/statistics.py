"""Statistics that the standard library does not have. Counts go in, so that a million records cost a few numbers."""

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist, median
from typing import Final, NamedTuple

_Z: Final = NormalDist().inv_cdf(0.975)
_MAD_TO_SIGMA: Final = 1.4826
_BUCKET_BASE: Final = 1.05
_US_PER_MS: Final = 1000

Histogram = Mapping[int, int]
"""Number of values in each bucket; buckets are numbered in the order of the values."""


class Bounds(NamedTuple):
    low: float
    high: float


class Shift(NamedTuple):
    """How one sample lies against another. p: one-sided; delta: Cliff's, -1 to 1."""

    p: float
    delta: float


def wilson(hits: int, of: int) -> Bounds:
    """The 95 % interval of a share. (0, 1) when there is nothing to judge.  Source: Wilson 1927."""
    if of <= 0:
        return Bounds(0.0, 1.0)
    share, square = hits / of, _Z * _Z
    middle = share + square / (2 * of)
    spread = _Z * math.sqrt(share * (1 - share) / of + square / (4 * of * of))
    return Bounds(max(0.0, (middle - spread) / (1 + square / of)), min(1.0, (middle + spread) / (1 + square / of)))


def shift(now: Histogram, before: Histogram) -> Shift:
    """Whether values of `now` tend to be larger than those of `before`.

    Mann-Whitney U with correction for ties and continuity, by normal approximation, and Cliff's delta.
    Source: Mann and Whitney 1947; Cliff 1993.
    """
    many, few = sum(now.values()), sum(before.values())
    if many == 0 or few == 0:
        return Shift(1.0, 0.0)
    twice_u, below, ties = 0, 0, 0
    for bucket in sorted({*now, *before}):
        here, there = now.get(bucket, 0), before.get(bucket, 0)
        twice_u += here * (2 * below + there)
        below += there
        ties += (here + there) ** 3 - (here + there)
    # One division of whole numbers, so that a fifth is a fifth.
    delta = (twice_u - many * few) / (many * few)
    total = many + few
    variance = many * few / 12 * (total + 1 - ties / (total * (total - 1)))
    if variance <= 0:
        return Shift(1.0, delta)
    z = (twice_u / 2 - many * few / 2 - 0.5) / math.sqrt(variance)
    return Shift(math.erfc(z / math.sqrt(2)) / 2, delta)


def discoveries(chances: Sequence[float], q: float) -> list[bool]:
    """Which of several tests hold when a share `q` of false ones is allowed.  Source: Benjamini and Hochberg 1995."""
    ranked = sorted(chances)
    limit = max((p for rank, p in enumerate(ranked, 1) if p <= rank / len(ranked) * q), default=-1.0)
    return [p <= limit for p in chances]


def outlier_above(values: Sequence[int], sigmas: float) -> float:
    """From where on a value is unlike the others: median + sigmas x 1.4826 x MAD. Raises StatisticsError when empty."""
    middle = median(values)
    return middle + sigmas * _MAD_TO_SIGMA * median(abs(value - middle) for value in values)


def percentile_bucket(histogram: Histogram, q: float) -> int:
    """The bucket in which the cumulative count reaches ceil(q n). Raises ValueError when there is nothing."""
    # One millionth off, so that .95 x 20 is 19 however it was rounded.
    needed, reached = math.ceil(q * sum(histogram.values()) - 1e-6), 0
    for bucket in sorted(histogram):
        reached += histogram[bucket]
        if reached >= needed > 0:
            return bucket
    raise ValueError("a percentile of nothing")


def upper_edge_ms(bucket: int) -> float:
    """Where a bucket of durations ends, in milliseconds."""
    return float(_BUCKET_BASE ** (bucket + 1)) / _US_PER_MS
