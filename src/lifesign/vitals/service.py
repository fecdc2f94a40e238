"""Measurements that are kept, and what a node needs to analyse: workers, the gate of the demo, streams."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.settings import Settings
from lifesign.vitals import store
from lifesign.vitals.arrivals import Arrivals, Pace
from lifesign.vitals.rules import DemoGate, MeasurementNotFound, Remembered
from lifesign.vitals.sessions import Sessions
from lifesign.vitals.store import Measurement
from lifesign.vitals.workers import Workers

PREFIX = "ms"


class Caller(Protocol):
    """Whoever showed a key of the Vitals API."""

    @property
    def key_id(self) -> int:
        """The key."""

    @property
    def project_id(self) -> str:
        """What it belongs to."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """One per node, in `app.state.vitals`. gate: `snr_db` and `autocorrelation` of the settings."""

    workers: Workers
    arrivals: Arrivals
    demo: DemoGate
    sessions: Sessions
    gate: tuple[float, float]
    watched: Remembered
    # Of streams. One thread for each: what memory their sums take for a moment is held for every thread that ever did
    # any, and they take turns at Python anyway. A report is longer than an update, which must not wait for it.
    updates: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "vitals-updates"))
    reports: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "vitals-reports"))

    @classmethod
    def of(cls, settings: Settings) -> "Vitals":
        """As the settings say. No process is started before there is something to do."""
        count = settings.vitals_workers or max(1, (os.cpu_count() or 1) - 1)
        return cls(
            Workers(count),
            Arrivals(Pace(settings.vitals_upload_s)),
            DemoGate(),
            Sessions(settings.vitals_streams),
            (settings.vitals_snr_db, settings.vitals_ac),
            Remembered(),
        )

    async def close(self) -> None:
        """End the workers, and the threads once they are through with what they do."""
        await self.workers.close()
        for threads in (self.updates, self.reports):
            threads.shutdown(wait=False, cancel_futures=True)


def keep(conn: Connection, caller: Caller, report: dict[str, Any], now: EpochMs) -> Measurement:  # Any: JSON
    """Keep a report for the key that asked for it."""
    measurement = Measurement(new_id(PREFIX, now), caller.key_id, now, orjson.dumps(report).decode())
    store.insert_measurement(conn, measurement, caller.project_id)
    return measurement


def keep_all(
    conn: Connection, caller: Caller, reports: list[dict[str, Any] | None], now: EpochMs
) -> list[Measurement | None]:
    """Keep those reports that there are; where there is none, none."""
    return [None if each is None else keep(conn, caller, each, now) for each in reports]


def measurement(conn: Connection, key_id: int, measurement_id: str) -> Measurement:
    """One measurement of a key. Raises MeasurementNotFound."""
    found = store.measurement_of(conn, key_id, measurement_id)
    if found is None:
        raise MeasurementNotFound
    return found


def delete(conn: Connection, key_id: int, measurement_id: str) -> None:
    """Forget one measurement of a key. Raises MeasurementNotFound."""
    if not store.delete_measurement(conn, key_id, measurement_id):
        raise MeasurementNotFound


# A person's own -----------------------------------------------------------------------------------------------------
class Kept(NamedTuple):
    """The numbers of a measurement that a person kept; a vital that was refused is None."""

    id: str
    at: EpochMs
    seconds: float
    heart_rate: float | None
    confidence: float
    respiration_rate: float | None
    rmssd: float | None


def keep_own(
    conn: Connection, project_id: str, user_id: str, report: dict[str, Any], now: EpochMs
) -> Measurement:  # Any: JSON
    """Keep a report for the person whose pulse it tells of."""
    own = Measurement(new_id(PREFIX, now), store.NO_KEY, now, orjson.dumps(report).decode())
    store.insert_measurement(conn, own, project_id, user_id)
    return own


def own_history(conn: Connection, project_id: str, user_id: str, limit: int) -> list[Kept]:
    """What a person kept for themselves, the newest first."""
    return [_kept(each) for each in store.own_measurements(conn, project_id, user_id, limit)]


def _kept(measurement: Measurement) -> Kept:
    report = orjson.loads(measurement.report)
    vitals = report["vitals"]
    return Kept(
        measurement.id,
        measurement.created_at,
        report["duration_ms"] / 1000,
        vitals["heart_rate"]["value"],
        vitals["heart_rate"]["confidence"],
        vitals["respiration_rate"]["value"],
        vitals["rmssd"]["value"],
    )


def delete_own(conn: Connection, project_id: str, user_id: str, measurement_id: str) -> None:
    """Forget one of those. Raises MeasurementNotFound."""
    if not store.delete_own_measurement(conn, project_id, user_id, measurement_id):
        raise MeasurementNotFound


measurements_of = store.measurements_of
delete_older = store.delete_older
