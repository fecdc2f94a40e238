"""What the gate lets pass, number by number. Spec "Vitals", section 3."""

from dataclasses import replace
from itertools import pairwise
from typing import Any, get_args

import pytest

from lifesign.vitals import jobs
from lifesign.vitals.service import Vitals
from lifesign.vitals.signal import gate
from lifesign.vitals.signal.gate import Measured
from lifesign.vitals.signal.params import DEFAULTS, Reason
from lifesign.vitals.signal.synth import Scene, synthetic
from tests.harness import SETTINGS

# Just within everything that is asked for.
_BARELY = Measured(
    snr_db=1.01,
    autocorrelation=0.51,
    agreement=2 / 3,
    motion=0.149,
    luminance=15.0,
    clipped=0.2,
    loss=0.3,
    rois=2,
    face=0.5,
)
_ALONE = replace(_BARELY, rois=1, agreement=1.0, snr_db=3.01, autocorrelation=0.61)


@pytest.mark.parametrize("measured", [_BARELY, replace(_BARELY, face=None), replace(_BARELY, rois=8), _ALONE])
def test_what_is_within_every_limit_passes(measured: Measured) -> None:
    assert gate.reasons(measured, DEFAULTS) == set()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"snr_db": 1.0}, "low_snr"),
        ({"autocorrelation": 0.5}, "low_snr"),
        ({"agreement": 0.66}, "low_snr"),
        ({"motion": 0.15}, "motion"),
        ({"luminance": 14.9}, "low_light"),
        ({"clipped": 0.21}, "overexposed"),
        ({"loss": 0.31}, "gap"),
        ({"loss": 0.31, "is_face_lost": True}, "no_face"),
        ({"face": 0.49}, "no_face"),
        ({"is_flickering": True}, "flicker"),
        ({"is_crowded": True}, "multiple_faces"),
    ],
)
def test_each_limit_refuses_by_itself(changed: dict[str, Any], reason: Reason) -> None:
    assert gate.reasons(replace(_BARELY, **changed), DEFAULTS) == {reason}


@pytest.mark.parametrize("changed", [{"snr_db": 3.0}, {"autocorrelation": 0.6}, {"rois": 0}])
def test_one_region_alone_has_to_be_clearer(changed: dict[str, Any]) -> None:
    assert gate.reasons(replace(_ALONE, **changed), DEFAULTS) == {"low_snr"}


def test_settings_make_the_gate_stricter() -> None:
    made = synthetic(Scene(seconds=12, fps=15))
    document = {"t_ms": made.t_ms.tolist(), "rgb": made.rgb.tolist()}

    def rate(**changed: float) -> float | None:
        vitals = Vitals.of(SETTINGS.model_copy(update=changed))
        report = jobs.of_traces(document, jobs.Gate(*vitals.gate)).report
        assert report is not None
        value: float | None = report["vitals"]["heart_rate"]["value"]
        return value

    assert rate() == pytest.approx(72, abs=0.5)
    assert rate(vitals_snr_db=29.0) is None
    assert rate(vitals_ac=0.999) is None


def test_a_weak_signal_is_named_only_when_nothing_else_explains_it() -> None:
    assert gate.reasons(replace(_BARELY, snr_db=-3.0, motion=0.2), DEFAULTS) == {"motion"}


def test_of_several_reasons_the_first_of_the_table_is_given() -> None:
    table: list[Reason] = [
        "no_face",
        "multiple_faces",
        "frame_rate",
        "gap",
        "too_short",
        "overexposed",
        "low_light",
        "motion",
        "flicker",
        "low_snr",
        "unstable",
    ]

    assert set(table) < set(get_args(Reason))
    for earlier, later in pairwise(table):
        assert gate.first_reason({later, earlier}) == earlier
    assert gate.first_reason(set()) is None


@pytest.mark.parametrize(
    ("measured", "by_hand"),
    [
        # c1 = 3 / 7, c2 = 0.6: 0.4 x 0.4286 + 0.35 x 0.6 + 0.25
        (replace(_BARELY, snr_db=2.0, autocorrelation=0.6, agreement=1.0, motion=0.0, loss=0.0), 0.631429),
        # The same, half as still as one has to be, and a tenth of it lost: x 0.5 x 0.9
        (replace(_BARELY, snr_db=2.0, autocorrelation=0.6, agreement=1.0, motion=0.15, loss=0.1), 0.284143),
        (replace(_BARELY, snr_db=90.0, autocorrelation=1.0, agreement=1.0, motion=0.0, loss=0.0), 1.0),
        (replace(_BARELY, snr_db=-9.0, autocorrelation=0.1, agreement=0.0, motion=0.0, loss=0.0), 0.0),
        (replace(_BARELY, snr_db=90.0, autocorrelation=1.0, agreement=1.0, motion=0.4, loss=0.0), 0.0),
        (replace(_ALONE, snr_db=90.0, autocorrelation=1.0, motion=0.0, loss=0.0), 0.8),
    ],
)
def test_confidence_is_what_a_hand_computes(measured: Measured, by_hand: float) -> None:
    assert gate.confidence(measured, DEFAULTS) == pytest.approx(by_hand, abs=1e-6)
