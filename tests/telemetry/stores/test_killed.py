"""A store whose process is killed keeps every batch that was answered, and no half of another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lifesign.clock import EpochMs
from tests.telemetry.stores.appending import BATCH, PROJECT, batch
from tests.telemetry.stores.builder import NOW
from tests.telemetry.stores.conftest import SQL_STORES, Opened, opened

_ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("lone_store", SQL_STORES, indirect=True)
@pytest.mark.parametrize("answered", [1, 7])
def test_batches_that_were_answered_are_whole_after_a_kill(lone_store: Opened, answered: int) -> None:
    settings = lone_store.settings
    lone_store.runner.run(lone_store.store.close())
    url = {"LIFESIGN_DATABASE_URL": settings.database_url.get_secret_value()} if settings.database_url else {}
    command = [sys.executable, "-m", "tests.telemetry.stores.appending", str(settings.data_dir)]

    with subprocess.Popen(command, cwd=_ROOT, env=os.environ | url, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            told = [int(process.stdout.readline()) for _ in range(answered)]
        finally:
            process.kill()
        told += [int(line) for line in process.stdout.read().split()]

    with opened(settings) as again:
        kept = again.runner.run(again.store.stats(PROJECT, EpochMs(0), EpochMs(NOW * 2)))
        used = again.runner.run(again.store.used(PROJECT, NOW))
        for number in told:
            found = again.runner.run(again.store.records(PROJECT, [each.record_id for each in batch(number)]))
            assert len(found) == BATCH
    # The one that was being stored may have got there, and then whole.
    assert kept.records == used
    assert kept.records in {len(told) * BATCH, (len(told) + 1) * BATCH}
