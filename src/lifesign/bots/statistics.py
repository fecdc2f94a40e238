"""What became of a bot's runs over some days. Pure.

Source: spec/bots.md, section 13.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from lifesign.bots.budget import credits_of
from lifesign.bots.run_store import Ended
from lifesign.clock import EpochMs, rfc3339

DAY_MS: Final = 86_400_000
TYPES: Final = {"scheduled": "heartbeat", "catch_up": "heartbeat", "trigger": "trigger"}
"""What a kind of run is called in logs."""


@dataclass(frozen=True, slots=True)
class Spent:
    """What a bot cost in the same time."""

    tokens: int
    units: int


def first_instant(now: EpochMs, days: int) -> EpochMs:
    """When the first of so many UTC days began, today being the last."""
    return EpochMs(now - now % DAY_MS - (days - 1) * DAY_MS)


def statistics(
    runs: Sequence[Ended], spent: Spent, *, active: int, days: int, now: EpochMs
) -> dict[str, Any]:  # Any: JSON
    """The numbers of so many UTC days, today included. active: schedules that are enabled and run."""
    counts: Counter[str] = Counter()
    types, reasons, models = Counter[str](), Counter[str](), Counter[str]()
    series: dict[str, Counter[str]] = {
        rfc3339(EpochMs(first_instant(now, days) + n * DAY_MS))[:10]: Counter() for n in range(days)
    }
    for run in runs:
        slots = run.slots if run.status == "skipped" else 1
        counts[run.status] += slots
        types[TYPES[run.kind]] += slots
        if run.reason is not None:
            reasons[run.reason] += slots
        if run.model is not None and run.started_at is not None:
            models[run.model] += 1
        day = series.get(rfc3339(run.created_at)[:10])
        if day is not None:
            day["total"] += slots
            day[run.status] += slots
    took = [run.duration_ms for run in runs if run.started_at is not None and run.duration_ms is not None]
    judged = counts["success"] + counts["error"]
    return {
        "total_executions": counts.total(),
        "success_count": counts["success"],
        "error_count": counts["error"],
        "skipped_count": counts["skipped"],
        "success_rate": round(100 * counts["success"] / judged, 1) if judged else 0,
        "total_tokens": spent.tokens,
        "total_credits": credits_of(spent.units),
        "avg_duration_ms": round(sum(took) / len(took)) if took else 0,
        "active_heartbeats": active,
        "by_type": dict(types),
        "time_series": [
            {"date": date, "total": day["total"], "success": day["success"], "error": day["error"]}
            for date, day in series.items()
        ],
        "lifesign": {
            "cancelled_count": counts["cancelled"],
            "by_reason": dict(reasons),
            "by_model": dict(models),
        },
    }
