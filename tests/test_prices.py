"""What calls cost: by a file of one's own first, else by the bundled table where it knows provider and model."""

import json
import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest
from genai_prices import Usage
from genai_prices.data import providers
from genai_prices.types import ModelPrice

from lifesign.clock import EpochMs, from_datetime
from lifesign.prices import InvalidPrices, Prices, TokenCounts

NOW = EpochMs(1_767_614_400_000)  # 2026-01-05
OWN = {
    "gpt-5": {"input": 1.25, "output": 10, "cache_read": 0.125},
    "gpt-*": {"input": 100, "output": 100},
    "gpt-5-*": {"input": 0.25, "output": 2},
    "claude-x": {"input": 3, "output": 15, "cache_read": 0.3, "cache_write": 3.75},
}


def own(tmp_path: Path, told: object = OWN) -> Prices:
    path = tmp_path / "prices.json"
    path.write_text(told if isinstance(told, str) else json.dumps(told))
    return Prices.from_file(path)


# One's own -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("model", "tokens", "nano"),
    [
        # 1,000 x 1.25 + 200 x 10 USD per million.
        ("gpt-5", TokenCounts(1000, 200), 1_250_000 + 2_000_000),
        # 400 of them were cached and cost a tenth.
        ("gpt-5", TokenCounts(1000, 200, 400), 750_000 + 50_000 + 2_000_000),
        # No price for what is written to the cache: it costs what input does.
        ("gpt-5", TokenCounts(1000, 0, 400, 100), 750_000 + 50_000),
        ("claude-x", TokenCounts(1000, 10, 400, 100), 1_500_000 + 120_000 + 375_000 + 150_000),
        # The longest that fits.
        ("gpt-5-mini", TokenCounts(1000), 250_000),
        ("gpt-4", TokenCounts(1000), 100_000_000),
        # Less than nothing is not charged.
        ("gpt-5", TokenCounts(10, 0, 400), 50_000),
        # 0.125 USD per million: 125 x 10^-9 a token.
        ("gpt-5", TokenCounts(1, 0, 1), 125),
        ("gpt-5", TokenCounts(), 0),
        ("other", TokenCounts(1000), None),
    ],
)
def test_prices_of_a_file(tmp_path: Path, model: str, tokens: TokenCounts, nano: int | None) -> None:
    assert own(tmp_path).price(None, model, tokens, NOW) == nano


def test_prices_of_a_file_go_before_the_table(tmp_path: Path) -> None:
    assert own(tmp_path).price("openai", "gpt-5", TokenCounts(1000), NOW) == 1_250_000
    assert (
        own(tmp_path, {"gpt-5": {"input": 9, "output": 9}}).price("openai", "gpt-5", TokenCounts(1000), NOW)
        == 9_000_000
    )


def test_fractions_of_the_smallest_unit_are_rounded_half_up(tmp_path: Path) -> None:
    prices = own(tmp_path, {"m": {"input": 0.0005, "output": 0.0004999}})

    assert prices.price(None, "m", TokenCounts(1), NOW) == 1
    assert prices.price(None, "m", TokenCounts(0, 1), NOW) == 0
    assert prices.price(None, "m", TokenCounts(3), NOW) == 2


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ([], "must be an object with a model in each key"),
        ({"m": 5}, "'m' must be an object of prices"),
        ({"m": {"input": 1}}, "'m': output is missing"),
        ({"m": {"output": 1}}, "'m': input is missing"),
        ({"m": {"input": "1", "output": 1}}, "'m': input must be a number from 0 to 1000000"),
        ({"m": {"input": True, "output": 1}}, "'m': input must be a number"),
        ({"m": {"input": -1, "output": 1}}, "'m': input must be a number"),
        ('{"m": {"input": NaN, "output": 1}}', "'m': input must be a number"),
        ('{"m": {"input": 1e999999, "output": 1}}', "'m': input must be a number"),
        ({"m": {"input": 1, "output": 1, "cached": 1}}, "'m': unknown 'cached'; there are input, output"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_place(tmp_path: Path, told: object, words: str) -> None:
    with pytest.raises(InvalidPrices, match=words):
        own(tmp_path, told)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidPrices, match=r"none\.json: No such file"):
        Prices.from_file(tmp_path / "none.json")


# The bundled table ---------------------------------------------------------------------------------------------------
def test_the_table_knows_providers_by_name_and_guesses_none() -> None:
    prices = Prices()
    tokens = TokenCounts(1_000_000, 100_000)

    # 3 and 15 USD per million, and dearer beyond 200,000 input tokens in one call.
    assert prices.price("anthropic", "claude-sonnet-4-5", TokenCounts(100_000, 100_000), NOW) == 1_800_000_000
    assert prices.price("anthropic", "claude-sonnet-4-5", tokens, NOW) == 8_250_000_000
    assert prices.price(None, "claude-sonnet-4-5", tokens, NOW) is None
    assert prices.price("somebody", "claude-sonnet-4-5", tokens, NOW) is None
    assert prices.price("anthropic", "no-such-model", tokens, NOW) is None
    assert prices.price("a" * 10_000, "m", tokens, NOW) is None
    assert Prices(is_table_used=False).price("anthropic", "claude-sonnet-4-5", tokens, NOW) is None


def test_every_model_of_the_table_costs_what_the_library_says() -> None:
    at = datetime(2026, 1, 5, 12, tzinfo=UTC)
    prices = Prices()
    compared = 0
    for provider in providers:
        for model in provider.models:
            found = provider.find_model(model.id)
            plain = None if found is None else found.get_prices(at)
            if found is None or plain is None or not is_of_text(plain):
                continue
            for counts in (TokenCounts(1000, 50), TokenCounts(900_000, 7, 300_000, 0)):
                usage = Usage(
                    input_tokens=counts.input, output_tokens=counts.output, cache_read_tokens=counts.cache_read
                )
                told = found.calc_price(usage, provider, genai_request_timestamp=at).total_price
                mine = prices.price(provider.id, model.id, counts, from_datetime(at))
                assert mine is not None
                assert abs(mine - told * 10**9) <= Decimal("0.5"), (provider.id, model.id)
                compared += 1
    assert compared > 2000


def is_of_text(price: ModelPrice) -> bool:
    """Whether the library, too, needs nothing but numbers of tokens to calculate with it."""
    named = {name for name, value in vars(price).items() if value is not None}
    plain = {"input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok", "requests_kcount"}
    return {"input_mtok", "output_mtok"} <= named <= plain


def test_prices_that_change_are_those_of_the_day() -> None:
    prices, tokens = Prices(), TokenCounts(1_000_000)

    # o3 became five times cheaper on 2025-06-10.
    assert prices.price("openai", "o3", tokens, from_datetime(datetime(2025, 6, 1, tzinfo=UTC))) == 10_000_000_000
    assert prices.price("openai", "o3", tokens, NOW) == 2_000_000_000


def test_the_table_is_read_only_when_needed_and_may_be_absent() -> None:
    program = """
import sys
from lifesign.clock import EpochMs
from lifesign.prices import Prices, TokenCounts
assert "genai_prices" not in sys.modules
if sys.argv[1] == "absent":
    sys.modules["genai_prices"] = None
print(Prices().price("openai", "o3", TokenCounts(1000), EpochMs(1_767_614_400_000)))
"""

    def price(how: str) -> str:
        told = subprocess.run([sys.executable, "-c", program, how], check=True, capture_output=True, text=True)
        return told.stdout.strip()

    assert (price("there"), price("absent")) == ("2000000", "None")
