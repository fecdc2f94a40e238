"""What runs cost: credits, prices, periods, reservations, and what a run may still spend. Pure.

Credits are stored as whole numbers of 1/10,000 credit, here called units; one credit is one US cent.
Source: spec/bots.md, section 10.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, Decimal
from typing import Final, Literal, get_args

from lifesign import schedule
from lifesign.clock import EpochMs

PeriodKind = Literal["month", "week", "day"]
PERIOD_KINDS: Final = get_args(PeriodKind)
UNITS_PER_CREDIT: Final = 10_000
_UNITS_PER_NANO_USD: Final = Decimal(UNITS_PER_CREDIT * 100) / 10**9
_MOST_UNITS: Final = 10**15
"""No response is charged more, a billion dollars: sums of what others claim must stay numbers of a database."""
_BYTES_PER_TOKEN: Final = 4
_DECEMBER: Final = 12
LEAST_OUTPUT_TOKENS: Final = 16
"""A request that could not be answered with so many tokens is not made."""
NOTICES: Final = ((80, 1), (100, 2))
"""Per cent of a budget at which somebody is told, and which notice of the period that is."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs: USD per million tokens, by the project."""

    input: Decimal
    output: Decimal
    cached_input: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Tariff:
    """How responses of a bot are priced. credits_per_1k: where no price is known, units for a thousand tokens."""

    prices: Mapping[str, Price]
    units_per_1k: int


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one response, or of several."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    requests: int = 1
    is_estimated: bool = False


@dataclass(frozen=True, slots=True)
class Period:
    """A span that a budget is for; its end is exclusive."""

    start: EpochMs
    end: EpochMs


# Credits ------------------------------------------------------------------------------------------------------------
def units_of(amount: Decimal) -> int:
    """Credits as stored, rounded up."""
    return int((amount * UNITS_PER_CREDIT).to_integral_value(ROUND_CEILING))


def usd(text: str) -> Decimal:
    """A price as it is stored."""
    return Decimal(text)


def credits_of(units: int) -> float | int:
    """Credits as shown: at most four decimals, whole numbers without any."""
    whole, rest = divmod(units, UNITS_PER_CREDIT)
    return round(units / UNITS_PER_CREDIT, 4) if rest else whole


def cost(usage: Usage, model: str | None, tariff: Tariff, nano_usd: int | None) -> int:
    """Units of one response, rounded up. nano_usd: its price by the common table, None where that has none."""
    price = tariff.prices.get(model or "")
    if price is not None:
        cached = min(usage.cached_tokens, usage.input_tokens) if price.cached_input is not None else 0
        # USD per million tokens are units per token.
        exact = (usage.input_tokens - cached) * price.input + usage.output_tokens * price.output
        exact += cached * (price.cached_input or Decimal(0))
        return _up(exact)
    if nano_usd is not None:
        return _up(nano_usd * _UNITS_PER_NANO_USD)
    return _up(Decimal((usage.input_tokens + usage.output_tokens) * tariff.units_per_1k) / 1000)


def _up(exact: Decimal) -> int:
    return min(int(exact.to_integral_value(ROUND_CEILING)), _MOST_UNITS)


def estimated_tokens(byte_count: int) -> int:
    """How many tokens a text of so many bytes is taken for where nobody counted."""
    return -(-byte_count // _BYTES_PER_TOKEN)


def affordable_output(units: int, input_cost: int, units_per_1k_output: int) -> int | None:
    """Output tokens that the rest of a reservation still pays for after the input; None: any number."""
    if units_per_1k_output <= 0:
        return None
    return max(0, (units - input_cost) * 1000 // units_per_1k_output)


# Periods ------------------------------------------------------------------------------------------------------------
def period_at(kind: PeriodKind, timezone: str, at: EpochMs) -> Period:
    """The calendar month, week (from Monday) or day around an instant."""
    first = today = schedule.reading_of(at, timezone).date()
    if kind == "month":
        first = today.replace(day=1)
        following = first.replace(year=first.year + first.month // _DECEMBER, month=first.month % _DECEMBER + 1)
    elif kind == "week":
        first = today - timedelta(days=today.weekday())
        following = first + timedelta(days=7)
    else:
        following = first + timedelta(days=1)
    return Period(_midnight(first, timezone), _midnight(following, timezone))


def _midnight(day: date, timezone: str) -> EpochMs:
    return schedule.instant_of(datetime(day.year, day.month, day.day), timezone)  # noqa: DTZ001 - a wall clock


# Reservations -------------------------------------------------------------------------------------------------------
def remaining(budget: int | None, spent: int, reserved: int) -> int | None:
    """Units that a start may still reserve; None: any number."""
    return None if budget is None else max(0, budget - spent - reserved)


def reservation(left: int | None, most_per_run: int, least_per_run: int) -> int | None:
    """Units that a start reserves; None when too few are left."""
    if left is None:
        return most_per_run
    return None if left < least_per_run else min(most_per_run, left)


def notices_due(budget: int | None, before: int, after: int) -> Sequence[tuple[int, int]]:
    """Which notices a period gets when what was spent of a budget goes up: (per cent, number)."""
    if not budget:
        return ()
    return [(percent, n) for percent, n in NOTICES if before * 100 < budget * percent <= after * 100]
