"""Words that are stored as numbers: every word has one."""

from typing import get_args

import pytest

from lifesign.telemetry.records import Kind, SignalType, Status
from lifesign.telemetry.stores.clickhouse import rows
from lifesign.telemetry.stores.codes import KINDS, SIGNALS, STATUSES


@pytest.mark.parametrize(
    ("stored", "words"),
    [(KINDS, Kind), (STATUSES, Status), (SIGNALS, SignalType), (rows.STATUSES, Status)],
    ids=["kinds", "statuses", "signals", "statuses in ClickHouse"],
)
def test_every_word_that_a_record_may_have_is_stored_as_one_number(stored: tuple[str, ...], words: object) -> None:
    assert len(get_args(words)) > 1
    assert sorted(stored) == sorted(get_args(words))


def test_words_keep_the_numbers_that_are_in_files() -> None:
    assert KINDS[:11] == (
        *("other", "llm", "embedding", "retrieval", "tool", "agent", "workflow", "memory"),
        *("guardrail", "evaluation", "http"),
    )
    assert STATUSES[:3] == ("unset", "ok", "error")
    assert SIGNALS[:5] == ("info", "error", "tool_call_failed", "slow_operation", "user_signal")
