"""`lifesign vitals`: files in, reports and pictures out, and exit codes that a script can go by."""

import csv
import io
import json
import re
from pathlib import Path
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest

from lifesign.cli import main
from lifesign.vitals.signal.params import DISCLAIMER, UNITS
from lifesign.vitals.signal.synth import Scene, synthetic


def run(capfdbinary: pytest.CaptureFixture[bytes], *arguments: str) -> tuple[int, str, str]:
    code = main(["vitals", *arguments])
    printed = capfdbinary.readouterr()
    return code, printed.out.decode(), printed.err.decode()


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.json"
    assert main(["vitals", "synth", str(path), "--bpm", "66", "--seconds", "15"]) == 0
    return path


def test_a_pulse_is_told_with_the_disclaimer(trace: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, err = run(capfdbinary, "analyze", str(trace))

    assert code == 0
    assert out.splitlines()[0].split("  ")[0] == "heart rate"
    assert re.search(r"^heart rate +6[56]\.\d \+- 0\.5 bpm, confidence 1\.0$", out, re.MULTILINE)
    assert "sdnn              - (too_short)" in out
    assert DISCLAIMER in err


def test_the_report_is_json(trace: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    code, out, _ = run(capfdbinary, "analyze", str(trace), "--json", "--method", "chrom")

    report = json.loads(out)
    assert code == 0
    assert list(report["vitals"]) == list(UNITS)
    assert report["method"] == "chrom"


def test_a_line_reads_json_from_its_input(
    trace: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(trace.read_bytes())))

    code, out, _ = run(capfdbinary, "analyze", "-", "--json")

    assert code == 0
    assert json.loads(out)["vitals"]["heart_rate"]["value"] == pytest.approx(66, abs=0.5)


def test_the_series_is_csv(trace: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _, out, _ = run(capfdbinary, "analyze", str(trace), "--csv")

    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["t_ms"] for row in rows] == [str(1000 * at) for at in range(8, 16)]
    assert float(rows[-1]["heart_rate"]) == pytest.approx(66, abs=0.5)


def test_noise_is_refused_with_an_exit_code(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "noise.json"
    rgb = 140 + np.random.default_rng(2).normal(0, 1, (450, 3, 3))
    path.write_text(json.dumps({"fps": 30, "rgb": rgb.tolist()}))

    code, out, err = run(capfdbinary, "analyze", str(path))

    assert code == 4
    assert out.splitlines()[0].split() == ["heart", "rate", "-", "(low_snr)"]
    assert err.splitlines()[-1] == "lifesign: no measurable pulse: low_snr"


def test_a_table_of_colours_is_read(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    made = synthetic(Scene(bpm=84, seconds=12))
    lines = ["t_ms,cheek_r,cheek_g,cheek_b,brow_r,brow_g,brow_b,ppg"]
    for t_ms, rgb in zip(made.t_ms, made.rgb, strict=True):
        second = ",," if 2000 < t_ms < 2400 else ",".join(map(str, rgb[1]))
        lines.append(f"{t_ms},{','.join(map(str, rgb[0]))},{second},0.5")
    path = tmp_path / "trace.csv"
    path.write_text("\n".join(lines) + "\n")

    _, out, _ = run(capfdbinary, "analyze", str(path), "--json")

    assert json.loads(out)["vitals"]["heart_rate"]["value"] == pytest.approx(84, abs=0.5)
    assert "single_roi" not in json.loads(out)["warnings"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "[1]", "Request body must be a JSON object"),
        ("a.json", "{", "Request body must be a JSON object"),
        ("a.json", '{"fps":30,"rgb":[[1,1,1]]}', "Too few samples"),
        ("a.json", '{"fps":30,"rgb":[[NaN,1,1]]}', "rgb values must be finite numbers between 0 and 255"),
        ("a.json", '{"fps":30,"rgb":["red"]}', "rgb values must be finite numbers between 0 and 255"),
        ("a.json", '{"fps":30,"rgb":[[true,1,1]]}', "rgb values must be finite numbers between 0 and 255"),
        ("a.json", '{"fps":30}', "rgb must be an array with one entry for every sample"),
        ("a.json", '{"fps":30,"rgb":[[[1,1,1]],[[1,1,1],[2,2,2]]]}', "rgb must have the same regions in every sample"),
        ("a.json", '{"fps":30,"rgb":[[1,1,1]],"method":"x"}', "Unknown method"),
        ("a.json", '{"fps":30,"rgb":[[1,1,1]],"t_ms":["0"]}', "t_ms must be strictly increasing"),
        ("a.csv", "a,b\n1,2\n", "a CSV file needs the columns t_ms, r, g, b"),
        ("a.csv", "t_ms,r,g,b\n0,1,2,x\n", "line 2: b is no number"),
        ("a.mp4", "no video", "not a video that can be read"),
    ],
)
def test_bad_files_fail_and_say_why(
    tmp_path: Path, name: str, content: str, message: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / name).write_text(content)

    code, _, err = run(capfdbinary, "analyze", str(tmp_path / name))

    assert code == 1
    assert err.startswith("lifesign: ")
    assert message in err


@pytest.mark.parametrize(
    "arguments", [["analyze"], ["analyze", "a.json", "--camera", "0"], ["analyze", "a.json", "--plot", "a.gif"]]
)
def test_wrong_usage_is_told_before_anything_is_read(
    arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert run(capfdbinary, *arguments)[0] == 2


def test_a_picture_shows_three_panels(trace: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert run(capfdbinary, "analyze", str(trace), "--plot", str(tmp_path / "pulse.svg"))[0] == 0
    assert run(capfdbinary, "analyze", str(trace), "--plot", str(tmp_path / "pulse.png"))[0] == 0

    svg = ET.fromstring((tmp_path / "pulse.svg").read_text())  # noqa: S314 - written a line above
    name = "{http://www.w3.org/2000/svg}"
    assert len(svg.findall(f"{name}polyline")) == 3
    assert DISCLAIMER in [each.text for each in svg.findall(f"{name}text")]
    image = cv2.imread(str(tmp_path / "pulse.png"))
    assert image is not None
    assert image.shape[1] == 900
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 10


def test_beats_are_read_from_lines(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    path = tmp_path / "beats.csv"
    path.write_text("seconds\n0\n0.8\n1.65\n2.4\n3.2\n")

    code, out, _ = run(capfdbinary, "hrv", str(path))

    assert code == 0
    assert json.loads(out)["rmssd"] == pytest.approx(5000**0.5)
    path.write_text("0\n1\nx\n")
    assert run(capfdbinary, "hrv", str(path))[0] == 1
