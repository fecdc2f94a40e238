"""What the scripts of the page with the camera do, case by case: `capturing.mjs` runs them in Node."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lifesign.vitals.signal.params import REASONS
from tests.harness import Json

_NODE = shutil.which("node")
_STATIC = Path(__file__).parents[2] / "src" / "lifesign" / "web" / "static"
_CASES = Path(__file__).with_name("capturing.mjs")
_SKIN = [[190, 145, 125]] * 3
# What stands where there is no value.
_NONE = "\u2013"
_AUTO = "This camera changes its exposure by itself, which may hide a pulse: keep the light even."


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Json:
    """What every case told: all of them in one process."""
    if _NODE is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no node here: apt-get install nodejs")
    folder = tmp_path_factory.mktemp("scripts")
    for name in ("capture.js", "measuring.js", "seeing.js", "words.js"):
        shutil.copy(_STATIC / name, folder)
    (folder / "package.json").write_text('{"type":"module"}')
    # What finds a face is not ours: what it finds is said case by case.
    (folder / "vision").mkdir()
    (folder / "vision" / "vision_bundle.mjs").write_text(
        "export const FaceDetector = { createFromOptions: (...told) => globalThis.finding(...told) };"
    )
    ran = subprocess.run([_NODE, str(_CASES), str(folder)], check=False, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    told: Json = json.loads(ran.stdout)
    return told


# What is read of an image -------------------------------------------------------------------------------------------
def test_a_colour_is_the_mean_of_what_is_neither_too_dark_nor_too_bright(cases: Json) -> None:
    told = cases["colours"]

    # Of 800 pixels 600 are (100, 80, 60), 40 are (16, 0, 0) and 40 (0, 249, 0); 120 have 15 or less, or 250 or more.
    assert told["mixed"]["clipped"] == pytest.approx(0.15)
    assert told["mixed"]["colour"] == pytest.approx([60_640 / 680, 57_960 / 680, 36_000 / 680])
    # 120 of 560 are more than a fifth.
    assert told["mostly_clipped"] == {"clipped": pytest.approx(120 / 560), "colour": None}
    assert told["least"] == {"clipped": 0, "colour": [100, 80, 60]}
    assert told["too_few"] == {"clipped": 0, "colour": None}
    assert told["half_outside"]["colour"] == [100, 80, 60]
    assert told["outside"] == {"clipped": 1, "colour": None}


def test_the_places_of_a_face_lie_around_its_eyes_and_mouth(cases: Json) -> None:
    told = cases["regions"]

    forehead, left, right = told["regions"]
    # Eyes at (280, 200) and (360, 200), the mouth at (320, 280).
    assert forehead == pytest.approx([280, 140, 80, 30.4])
    assert left == pytest.approx([280 - 36.8 * 0.62, 227.2, 36.8, 33.6])
    assert right == pytest.approx([360 - 36.8 * 0.38, 227.2, 36.8, 33.6])
    assert told["box"] == [320, 240, 160]


def test_the_largest_face_is_followed_and_let_go_after_half_a_second(cases: Json) -> None:
    assert cases["following"] == {
        "not_sure_enough_to_begin": None,
        "largest": [320, 240, 160],
        "sure_enough_to_go_on": [320] * 4,
        "eased": [320, 320, 320, 320, 340, 356],
        "kept_for_half_a_second": [True] * 5,
        "lost": None,
        # Every fifth image, and each while there is none.
        "looked_at": [0, 10, 50, 100, 500],
    }


def test_the_wave_shows_the_pulse_and_no_change_of_the_light(cases: Json) -> None:
    told = cases["wave"]

    assert told["last_s"] - told["first_s"] == pytest.approx(8, abs=0.05)
    # 1.2 a second.
    assert told["beats_in_eight_seconds"] in {9, 10}
    assert told["height"] == pytest.approx(0.006, rel=0.12)
    assert told["of_light_that_changes"] < 1e-12
    assert told["of_nothing"] == []


def test_the_middle_of_an_image_is_read_as_it_is_shown(cases: Json) -> None:
    assert cases["parts"] == {
        "as_asked": [0, 0, 640, 480],
        "upright": [0, 140, 480, 360],
        "wide": [160, 0, 960, 720],
    }
    assert cases["upright"] == [0, 140, 480, 360, 0, 0, 640, 480]


def test_every_reason_has_its_words(cases: Json) -> None:
    told = cases["sentences"]

    elsewhere = {"artefacts", "jitter", "disagreement", "not_calibrated", "out_of_calibration"}
    assert set(told["known"]) == set(REASONS) - elsewhere
    assert told["nothing_missing"] == ""
    assert told["short"] == "Breaths and variability: 30 seconds or more are needed"
    assert told["apart"] == (
        "Breaths: the signs of breathing disagree; variability: the beats cannot be timed well enough"
    )
    assert told["moving"] == "Heart rate, breaths and variability: there was too much movement"
    assert told["shortest"] == (
        "Heart rate: 8 seconds or more are needed; breaths and variability: 30 seconds or more are needed"
    )
    assert told["told"] == ["15.2 1/min", _NONE]


# What leaves the page -----------------------------------------------------------------------------------------------
def test_what_leaves_the_page_are_numbers_in_batches_of_fifteen(cases: Json) -> None:
    told = cases["numbers_only"]

    start, first, second, stop = (json.loads(each) for each in told["sent"])
    assert start == {
        "type": "start",
        "token": "vst_1",
        "fps": 30,
        "rois": ["forehead", "cheek_l", "cheek_r"],
        "client": "web/1.0",
    }
    assert first == {
        "type": "frames",
        "seq": 0,
        "t": [round(index * 100 / 3, 2) for index in range(15)],
        "rgb": [_SKIN] * 15,
        "clipped": [[0, 0, 0]] * 15,
        "face": [0.9] * 15,
        "box": [[320, 240, 160]] * 15,
        "dropped": 0,
    }
    assert (second["seq"], second["t"][0], len(second["t"])) == (1, 500, 15)
    assert stop == {"type": "stop"}
    assert told["posted"] == [["/api/demo/session", "POST", ""]]
    assert told["address"] == "wss://lifesign.test/api/vitals/stream"


def test_the_camera_is_asked_for_what_is_needed_and_let_go_in_the_end(cases: Json) -> None:
    told = cases["numbers_only"]

    assert told["asked"] == {
        "audio": False,
        "video": {"width": {"ideal": 640}, "height": {"ideal": 480}, "frameRate": {"ideal": 30}, "facingMode": "user"},
    }
    assert told["said"] == [
        "Asking for the camera…",
        "Loading what finds a face…",
        "Look into the camera and hold still.",
        "Working it out…",
    ]
    assert told["kinds"] == ["start", "frames", "frames", "stop"]
    assert (told["ended"], told["results"], told["renewed"]) == (["Done.", True], 1, 0)
    assert told["stopped"] >= 1
    assert (told["picture"], told["scenes"][0], told["scenes"][-1]) == (None, True, False)
    assert told["parts"]["options"]["minDetectionConfidence"] == 0.4
    assert told["parts"]["options"]["baseOptions"]["modelAssetPath"].endswith("/vision/blaze_face_short_range.tflite")


@pytest.mark.parametrize("fps", ["30", "60", "120", "240"])
def test_however_fast_a_camera_is_no_more_than_ten_kilobytes_leave_in_a_second(cases: Json, fps: str) -> None:
    told = cases["bytes"][fps]

    assert 3000 < told["per_s"] <= 10_000
    assert told["batches"] == [15]


def test_images_that_the_page_did_not_get_are_told(cases: Json) -> None:
    assert cases["dropped"] == [0, 2, 0]


def test_one_clock_times_a_whole_stream(cases: Json) -> None:
    assert cases["clocks"] == {"capture": list(range(0, 495, 33)), "media": list(range(0, 495, 33))}


# Faces --------------------------------------------------------------------------------------------------------------
def test_a_face_that_comes_late_begins_the_recording_and_one_that_goes_is_told(cases: Json) -> None:
    told = cases["faces"]

    assert told["begun"] == 0
    assert told["times"] == [0, 33.33]
    assert (told["first"]["face"], told["first"]["rgb"][0]) == ([0.9] * 15, _SKIN)
    # It is held for half a second after it was seen last, in the 26th image.
    assert told["lost_after"] == 40
    assert told["last"]["face"] == [0] * 15
    assert (told["last"]["rgb"], told["last"]["box"]) == ([[None] * 3] * 15, [[0, 0, 0]] * 15)
    assert told["lost"] == [None, False]
    # Nobody waits for ever: after three seconds the server is told that there is none.
    assert told["nobody_ever"] == {"first_t": 0, "count": 2}


def test_without_what_finds_a_face_there_is_an_oval(cases: Json) -> None:
    told = cases["oval"]

    for each in (told, told["late"]):
        assert (
            each["said"],
            each["members"],
        ) == ("Fill the oval with your face and hold still.", ["type", "seq", "t", "rgb", "clipped", "dropped"])
    assert told["rgb"] == _SKIN
    assert (len(told["guide"][0]), told["guide"][1]) == (3, True)


# Cameras ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("refused", "The camera was refused, so nothing is measured. Your browser's settings let you allow it."),
        ("absent", "There is no camera that can be used, so nothing is measured."),
        ("unfit", "There is no camera that can be used, so nothing is measured."),
        ("busy", "The camera does not start, so nothing is measured. Another program may be using it."),
        ("unsafe", "This browser gives pages no camera, or only over https."),
        ("old", "This browser does not tell when an image was taken: a newer one does."),
    ],
)
def test_without_a_camera_it_is_said_why_and_no_session_is_made(cases: Json, case: str, says: str) -> None:
    assert cases["refusals"][case] == {"says": says, "ended": [says, False], "posted": 0, "sockets": 0}


def test_exposure_and_white_balance_are_held_after_two_seconds_or_it_is_warned(cases: Json) -> None:
    held = [{"advanced": [{"exposureMode": "manual", "whiteBalanceMode": "manual"}]}]

    assert cases["locking"] == {
        "able": {"early": 0, "constraints": held, "warned": []},
        "half": {"early": 0, "constraints": [], "warned": [_AUTO]},
        "none": {"early": 0, "constraints": [], "warned": [_AUTO]},
    }


def test_who_stops_before_it_began_is_shown_nothing_of_it_afterwards(cases: Json) -> None:
    told = cases["stopping_early"]

    assert (told["while_asked"], told["stopped"], told["posted"]) == (["Stopped.", False], 1, 0)
    assert (told["is_second_shown"], told["is_second_over"]) == (True, False)


# Servers ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("away", "The server cannot be reached."),
        ("limited", "Demo limit reached: 10 requests per hour."),
        ("broken", "The server makes no session now; reload the page and try again."),
        ("signed_out", "The server makes no session now; reload the page and try again."),
        ("nothing", "The server makes no session now; reload the page and try again."),
    ],
)
def test_a_server_that_makes_no_session_ends_it_with_a_sentence(cases: Json, case: str, says: str) -> None:
    told = cases["servers"][case]

    assert (told["says"], told["picture"]) == (says, None)
    assert told["stopped"] >= 1


@pytest.mark.parametrize(
    ("case", "says"),
    [("before_it_is_ready", "The server does not take the stream."), ("refused_with_words", "Server is busy")],
)
def test_a_stream_that_is_not_taken_ends_with_a_sentence(cases: Json, case: str, says: str) -> None:
    assert cases["closings"][case] == [says, False, True]


@pytest.mark.parametrize(
    ("case", "ended", "kinds"),
    [
        ("lost", ["The connection ended, so there is no result.", False], ["start"]),
        ("error", ["t_ms must be strictly increasing", False], ["start"]),
        ("slow", ["The connection is too slow, or lost, so there is no result.", False], ["start", "frames"]),
        ("not_slow", None, ["start", "frames"]),
        ("camera_gone", ["The camera is gone.", True], ["start", "frames", "frames", "stop"]),
        ("broken_finder", ["The images cannot be read any more.", True], ["start", "stop"]),
        ("never_answered", None, ["start", "stop"]),
        (
            "never_answered_for_long",
            ["The server does not answer, so there is no result.", False],
            ["start", "stop"],
        ),
        ("stopped_twice", ["Stopped.", False], ["start", "stop"]),
    ],
)
def test_however_it_ends_it_is_said_and_the_camera_is_let_go(cases: Json, case: str, ended: Any, kinds: Any) -> None:
    told = cases["closings"][case]

    assert told["ended"] == ended
    assert told["kinds"] == kinds
    assert told["results"] == (1 if ended is not None and ended[1] else 0)
    assert told["stopped"] >= (case != "not_slow")
    assert told["complaints"] == (["Error: out of memory"] if case == "broken_finder" else [])


def test_what_the_server_says_is_shown(cases: Json) -> None:
    assert cases["hears"] == {
        "updates": [{"value": None, "confidence": 0, "reason": "motion"}],
        "said": "The heartbeat could not be checked in.",
        "renewed": 1,
        "ended": ["Done.", True],
    }


# The page -----------------------------------------------------------------------------------------------------------
def _shown(told: Json, *names: str) -> list[Any]:
    return [told[each] for each in names]


def test_the_page_follows_a_measurement_and_holds_the_focus(cases: Json) -> None:
    told = cases["page"]

    assert told["begun"] == {
        "says": "Look into the camera and hold still.",
        "rate": _NONE,
        "confidence": _NONE,
        "reason": "",
        "start": False,
        "stop": True,
        "focus": "stop",
        "scrolled": ".capture-scene",
    }
    assert _shown(told["refused"], "rate", "confidence", "reason") == [_NONE, _NONE, "More light."]
    assert _shown(told["given"], "rate", "confidence", "reason") == ["72", "86 %", ""]
    assert told["posted"][0] == ["/vitals/session", "POST", "csrf=c&heartbeat=grandma"]


def test_a_page_out_of_sight_stops_the_camera_and_still_gives_the_result(cases: Json) -> None:
    told = cases["page"]

    assert told["hidden"]["says"] == "Working it out…"
    assert told["ended"] == {
        "says": "Stopped, because the page was out of sight.",
        "rate": "72",
        "confidence": "80 %",
        "reason": "",
        "start": True,
        "stop": False,
        "focus": "start",
    }
    assert told["rows"] == [
        ["71.9 bpm", _NONE, _NONE],
        ["Breaths and variability: 30 seconds or more are needed"],
    ]
    assert told["redrawn"] == [True, True]
    assert told["hidden_parts"] == [False, True]


def test_nothing_of_before_stands_there_when_it_begins_or_is_lost(cases: Json) -> None:
    told = cases["page"]

    assert _shown(told["again"], "rate", "confidence", "reason") == [_NONE, _NONE, ""]
    assert _shown(told["lost"], "says", "rate", "start", "focus") == [
        "The connection ended, so there is no result.",
        _NONE,
        True,
        # It was elsewhere, and is not taken from there.
        "heartbeat",
    ]
    assert told["nothing_to_stop"] == told["lost"]
