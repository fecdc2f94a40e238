"""What is refused of traces, and in which words."""

from typing import Any

import numpy as np
import pytest

from lifesign.vitals import Stream, analyze_traces
from lifesign.vitals.bodies import calibration_in
from lifesign.vitals.jobs import Gate, analyze_body
from lifesign.vitals.rules import InvalidTraces, TooManySamples

_GOOD = np.full((10, 1, 3), 100.0)
_TIMES = np.arange(10) * 33.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1.0, 255.1, 256.0])
def test_colours_are_finite_and_within_a_byte(bad: float) -> None:
    rgb = _GOOD.copy()
    rgb[3, 0, 1] = bad

    with pytest.raises(ValueError, match=r"^rgb values must be finite numbers between 0 and 255$"):
        analyze_traces(rgb, _TIMES)
    with pytest.raises(ValueError, match=r"^rgb values must be finite numbers between 0 and 255$"):
        Stream().push_rgb(rgb, _TIMES)


@pytest.mark.parametrize(
    ("rgb", "options", "message"),
    [
        (_GOOD, {"t_ms": _TIMES[:9]}, "t_ms and rgb must have the same length"),
        (_GOOD, {"t_ms": np.zeros(10)}, "t_ms must be strictly increasing"),
        (_GOOD, {"t_ms": _TIMES[::-1]}, "t_ms must be strictly increasing"),
        (_GOOD, {"t_ms": np.full(10, np.nan)}, "t_ms must be strictly increasing"),
        (_GOOD, {}, "t_ms or fps is required"),
        (_GOOD, {"fps": 4}, "fps must be a number between 5 and 240"),
        (_GOOD, {"fps": True}, "fps must be a number between 5 and 240"),
        (_GOOD[:7], {"fps": 30}, "Too few samples"),
        (_GOOD, {"fps": 30, "method": "guess"}, "Unknown method"),
        (_GOOD, {"fps": 30, "mode": "sleep"}, "Unknown mode"),
        (_GOOD, {"fps": 30, "face": [1.0]}, "face must have one number for every sample"),
        (_GOOD, {"fps": 30, "face": [2.0] * 10}, "face must hold finite numbers from 0 to 1"),
        (_GOOD, {"fps": 30, "box": np.zeros((10, 2))}, "box must have 3 numbers for every sample"),
        (_GOOD, {"fps": 30, "clipped": np.full((10, 1), np.nan)}, "clipped must hold finite numbers from 0 to 1"),
        (_GOOD, {"fps": 30, "off": [[True]]}, "off must have one value for every region of every sample"),
        (np.zeros((10, 4)), {"fps": 30}, "rgb must hold one [r, g, b], or 1 to 8 of them, for every sample"),
        (np.zeros((10, 9, 3)), {"fps": 30}, "rgb must hold one [r, g, b], or 1 to 8 of them, for every sample"),
        ("red", {"fps": 30}, "rgb values must be finite numbers between 0 and 255"),
        ([[1, 2, 3], [1, 2]], {"fps": 30}, "rgb values must be finite numbers between 0 and 255"),
    ],
)
def test_what_is_wrong_is_said(rgb: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as refusal:  # noqa: PT011 - the whole message is compared below
        analyze_traces(rgb, **options)

    assert str(refusal.value) == message


def test_too_many_samples_are_another_mistake() -> None:
    with pytest.raises(TooManySamples, match=r"^Too many samples$"):
        analyze_traces(np.full((36_001, 3), 100.0), fps=30)


_HUGE = "1" + "0" * 400


@pytest.mark.parametrize("is_trial", [True, False])
@pytest.mark.parametrize(
    ("members", "message"),
    [
        (f'"t_ms":[0,1,2,3,4,5,6,{_HUGE}]', "t_ms must be strictly increasing"),
        (f'"t_ms":[-{_HUGE},1,2,3,4,5,6,7]', "t_ms must be strictly increasing"),
        (f'"fps":{_HUGE}', "fps must be a number between 5 and 240"),
        (f'"fps":30,"calibration":[{{"ratio":{_HUGE},"spo2":99}},{{"ratio":1,"spo2":90}}]', "calibration must be 2"),
        (f'"fps":30,"calibration":[{{"ratio":1,"spo2":{_HUGE}}},{{"ratio":2,"spo2":90}}]', "calibration must be 2"),
    ],
)
def test_whole_numbers_beyond_every_float_are_refused(members: str, message: str, *, is_trial: bool) -> None:
    rgb = ",".join(["[100,90,80]"] * 8)

    with pytest.raises(InvalidTraces, match=f"^{message}"):
        analyze_body(f'{{"rgb":[{rgb}],{members}}}'.encode(), Gate(1.0, 0.5), is_trial=is_trial)


def _pairs(*pairs: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"ratio": ratio, "spo2": spo2} for ratio, spo2 in pairs]


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        {},
        "x",
        _pairs((1, 90)),
        _pairs(*((n / 10, 90 + n % 5) for n in range(51))),
        _pairs((0.5, 95), (0.8, 97.9)),
        _pairs((0.5, 69.9), (0.8, 90)),
        _pairs((0.5, 90), (0.8, 100.1)),
        _pairs((0.5, 90), (0.5, 95)),
        _pairs((0, 90), (5e-324, 95)),
        _pairs((-0.1, 90), (0.8, 95)),
        _pairs((0.5, 90), (101, 95)),
        _pairs((1e308, 90), (-1e308, 95)),
        _pairs((True, 90), (0.8, 95)),
        _pairs((None, 90), (0.8, 95)),
        _pairs(("0.5", 90), (0.8, 95)),
        [[0.5, 90], [0.8, 95]],
        [None, None],
    ],
)
def test_a_calibration_is_pairs_through_which_there_is_a_line(pairs: object) -> None:
    with pytest.raises(
        InvalidTraces, match=r"^calibration must be 2 to 50 pairs of ratio and spo2, with ratio from 0 to"
    ):
        calibration_in(pairs)


def test_the_widest_calibrations_are_taken() -> None:
    for pairs in (_pairs((0, 70), (100, 100)), _pairs(*((n / 10, 90 + n % 5) for n in range(50)))):
        assert calibration_in(pairs) is not None
    assert calibration_in(None) is None


def test_a_stream_keeps_its_regions() -> None:
    stream = Stream()
    stream.push_rgb(np.full((5, 3, 3), 100.0), np.arange(5.0))

    with pytest.raises(ValueError, match=r"^rgb must have the same regions in every sample$"):
        stream.push_rgb(np.full((5, 2, 3), 100.0), np.arange(5.0) + 10)
