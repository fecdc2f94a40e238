"""What a call of a language model costs, as far as that is known: by a file of one's own, else by a bundled table.

Costs are whole numbers of 10^-9 USD, so that sums are exact in any order. Used by telemetry and by bots.
Spec "Telemetry", section 4, "Prices".
"""

import json
from collections.abc import Mapping
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from msgspec import Struct

from lifesign.clock import EpochMs, to_datetime

_UNITS_PER_TOKEN: Final = 10**12
"""10^-18 USD, for one token, of 1 USD per million. Whole numbers of these are exact for every price there is."""
_UNITS_PER_CALL: Final = 10**15
"""The same for one call, of 1 USD per thousand."""
_UNITS_PER_NANO: Final = 10**9
_HIGHEST_USD: Final = 1_000_000
_RATES: Final = ("input", "output", "cache_read", "cache_write")
_REMEMBERED: Final = 4096
_LONGEST_NAME: Final = 256


class InvalidPrices(Exception):
    """The file of prices cannot be used; the message says what is wrong in it."""


class TokenCounts(Struct, frozen=True, gc=False):
    """Tokens of one call. `input` includes those read from and written to a cache."""

    input: int = 0
    output: int = 0
    cache_read: int = 0
    cache_write: int = 0


class Rate(NamedTuple):
    """10^-18 USD a token. steps: beyond so many input tokens in one call, all cost so much; the last one counts."""

    units: int
    steps: tuple[tuple[int, int], ...] = ()

    @classmethod
    def per_million(cls, usd: Decimal) -> "Rate":
        """The rate of so many USD per million tokens."""
        return cls(round(usd * _UNITS_PER_TOKEN))

    def of(self, input_tokens: int) -> int:
        """What holds for a call with so many input tokens."""
        units = self.units
        for beyond, dearer in self.steps:
            if input_tokens > beyond:
                units = dearer
        return units


class Rates(NamedTuple):
    """What a model costs. A rate of the cache that is None: cached tokens cost what others do."""

    input: Rate
    output: Rate
    cache_read: Rate | None = None
    cache_write: Rate | None = None
    units_per_call: int = 0

    def nano_usd(self, tokens: TokenCounts) -> int:
        """The cost of a call."""
        size = rest = tokens.input
        units = self.units_per_call + tokens.output * self.output.of(size)
        if self.cache_read is not None and tokens.cache_read:
            units += tokens.cache_read * self.cache_read.of(size)
            rest -= tokens.cache_read
        if self.cache_write is not None and tokens.cache_write:
            units += tokens.cache_write * self.cache_write.of(size)
            rest -= tokens.cache_write
        units += max(0, rest) * self.input.of(size)
        return (units + _UNITS_PER_NANO // 2) // _UNITS_PER_NANO


class Prices:
    """Prices by model: `own` first, by name or by `prefix*`; else the table of genai-prices, if it is installed."""

    def __init__(self, own: Mapping[str, Rates] | None = None, *, is_table_used: bool = True) -> None:
        self._own = dict(own or {})
        self._is_table_used = is_table_used
        # Names of models come from whoever sends spans: what is remembered of them has a bound.
        self._own_rates = lru_cache(maxsize=_REMEMBERED)(self._longest_match)

    @classmethod
    def from_file(cls, path: Path) -> "Prices":
        """Prices of a file, in USD per million: `{"<model or prefix*>": {"input", "output", "cache_read"?, ...}}`.

        Raises InvalidPrices.
        """
        try:
            told = json.loads(path.read_text(encoding="utf-8"), parse_float=Decimal, parse_int=Decimal)
        except OSError as error:
            raise InvalidPrices(f"{path}: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise InvalidPrices(f"{path}: not JSON: {error}") from error
        if not isinstance(told, dict):
            raise InvalidPrices(f"{path}: must be an object with a model in each key")
        return cls({model: _rates(f"{path}: {model!r}", rates) for model, rates in told.items()})

    def price(self, provider: str | None, model: str, tokens: TokenCounts, at: EpochMs) -> int | None:
        """10^-9 USD of a call at that time; None when no price is known. provider: who was called, by name."""
        rates = self._own_rates(model)
        if rates is None and provider and self._is_table_used:
            rates = _rates_in_table(provider, model, at)
        return None if rates is None else rates.nano_usd(tokens)

    def _longest_match(self, model: str) -> Rates | None:
        if model in self._own:
            return self._own[model]
        prefixes = (name for name in self._own if name.endswith("*") and model.startswith(name[:-1]))
        longest = max(prefixes, key=len, default=None)
        return None if longest is None else self._own[longest]


def _rates(where: str, told: Any) -> Rates:  # Any: JSON
    if not isinstance(told, dict):
        raise InvalidPrices(f"{where} must be an object of prices")
    unknown = sorted(set(told) - set(_RATES))
    if unknown:
        raise InvalidPrices(f"{where}: unknown {unknown[0]!r}; there are {', '.join(_RATES)}")
    found: dict[str, Rate] = {}
    for name, usd in told.items():
        if not isinstance(usd, Decimal) or not usd.is_finite() or not 0 <= usd <= _HIGHEST_USD:
            raise InvalidPrices(f"{where}: {name} must be a number from 0 to {_HIGHEST_USD}")
        found[name] = Rate.per_million(usd)
    for name in ("input", "output"):
        if name not in found:
            raise InvalidPrices(f"{where}: {name} is missing")
    return Rates(found["input"], found["output"], found.get("cache_read"), found.get("cache_write"))


# The bundled table ---------------------------------------------------------------------------------------------------
# Any, throughout: genai-prices is optional, and imported only when a price is asked for.
@lru_cache(maxsize=1)
def _providers() -> list[Any]:
    try:
        from genai_prices.data import providers  # noqa: PLC0415 - optional, and 0.2 s to import
    except ImportError:
        return []
    return providers


class _TableModel(NamedTuple):
    """A model of the table. rates: when they are the same at all times."""

    model: Any
    rates: Rates | None


@lru_cache(maxsize=_REMEMBERED)
def _table_model(provider: str, model: str) -> _TableModel | None:
    """The model in the table; None when it does not know the provider by name, or not the model."""
    providers = _providers()
    if not providers or len(provider) > _LONGEST_NAME or len(model) > _LONGEST_NAME:
        return None
    from genai_prices.data_snapshot import find_provider_by_id  # noqa: PLC0415 - as above

    known = find_provider_by_id(providers, provider)
    found = None if known is None else known.find_model(model, all_providers=providers)
    if found is None:
        return None
    return _TableModel(found, None if isinstance(found.prices, list) else _table_rates(found.prices))


def _rates_in_table(provider: str, model: str, at: EpochMs) -> Rates | None:
    found = _table_model(provider, model)
    if found is None or not isinstance(found.model.prices, list):
        return None if found is None else found.rates
    # They change with the date, some with the hour.
    return _table_rates(found.model.get_prices(to_datetime(at)))


def _table_rates(prices: Any) -> Rates | None:
    """Prices of the table for tokens of text. To calculate with them here is fifty times as fast as by the library."""
    told = prices.__dict__
    of_input, of_output = _table_rate(told.get("input_mtok")), _table_rate(told.get("output_mtok"))
    if of_input is None and of_output is None:
        return None
    return Rates(
        of_input or _FREE,
        of_output or _FREE,
        _table_rate(told.get("cache_read_mtok")),
        _table_rate(told.get("cache_write_mtok")),
        round((told.get("requests_kcount") or Decimal(0)) * _UNITS_PER_CALL),
    )


_FREE: Final = Rate(0)


def _table_rate(told: Any) -> Rate | None:
    if told is None or isinstance(told, Decimal):
        return None if told is None else Rate.per_million(told)
    steps = tuple((step.start, Rate.per_million(step.price).units) for step in told.tiers)
    return Rate(Rate.per_million(told.base).units, steps)
