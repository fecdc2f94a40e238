"""`lifesign vitals`: a pulse out of files and cameras, made-up pulses, and how well one is told from the other."""

import csv
import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.numbers import finite
from lifesign.cli.output import Column, print_bytes, print_fields, print_json, print_rows, whole_file

if TYPE_CHECKING:
    from lifesign.vitals.bench import Case
    from lifesign.vitals.signal.report import Analysis

app = typer.Typer(help="A pulse from a camera, or the reason why there is none.", no_args_is_help=True)

_STDIN = "-"
_MODES, _METHODS = "rest or exercise", "pos, chrom, lgi, omit, pbv or green"
_LAYOUTS = "synthetic, traces, vitallens, ubfc or pure"
_MAX_SECONDS = 300.0


class NotMeasurable(CommandFailed):
    """Everything worked, and there is no heart rate to be told."""

    exit_code = 4


@app.callback()
def root() -> None:
    """A pulse from a camera, or the reason why there is none."""


@app.command("analyze")
def analyze(
    file: Annotated[
        str | None,
        typer.Argument(metavar="FILE", help="A video, or traces as .json or .csv; - for JSON on standard input."),
    ] = None,
    *,
    camera: Annotated[
        int | None, typer.Option("--camera", metavar="N", min=0, help="Look through a camera of this machine instead.")
    ] = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=8, max=_MAX_SECONDS, callback=finite, help="How long to look.")
    ] = 30.0,
    mode: Annotated[str | None, typer.Option("--mode", help=f"{_MODES}.")] = None,
    method: Annotated[str | None, typer.Option("--method", help=f"{_METHODS}.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole report.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the heart rate second by second.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option("--plot", metavar="OUT", help="Draw waves, spectrum and tachogram: .svg or .png."),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Tell what refused values would have been.")] = False,
) -> None:
    """Tell a heart rate from a video, traces or a camera: exit code 0, or 4 when it is refused.

    Wellness estimate from camera images. Not a medical device. Not for diagnosis, treatment or emergencies.
    """
    if (file is None) == (camera is None):
        raise WrongUsage("either FILE or --camera is needed")
    if as_json and as_csv:
        raise WrongUsage("--json and --csv exclude each other")
    if plot is not None and plot.suffix.lower() not in {".svg", ".png"}:
        raise WrongUsage("--plot takes a name that ends in .svg or .png")
    analysis = _analysis(file, camera, seconds=seconds, options={"mode": mode, "method": method, "debug": debug})
    report = analysis.to_dict()
    if as_json:
        print_json(report)
    elif as_csv:
        print_bytes(_series_csv(report).encode())
    else:
        _tell(report)
    if plot is not None:
        _draw(analysis, plot)
    if analysis.heart_rate is None:
        raise NotMeasurable(f"no measurable pulse: {analysis.reason}")


def _analysis(file: str | None, camera: int | None, *, seconds: float, options: dict[str, Any]) -> "Analysis":
    """What a file or a camera tells. Raises CommandFailed."""
    from lifesign.vitals.extras import require_video, require_vitals
    from lifesign.vitals.rules import ExtraMissing, InvalidTraces, ModelError, VideoError

    given = {name: value for name, value in options.items() if value is not None}
    try:
        require_vitals()
        if camera is not None:
            require_video()
            from lifesign.vitals.analyze import analyze_samples, require_method, require_mode
            from lifesign.vitals.video.analyze import read_faces
            from lifesign.vitals.video.files import camera_frames

            given["mode"] = require_mode(given.get("mode", "rest"))
            given["method"] = require_method(given.get("method", "pos"))
            return analyze_samples(read_faces(camera_frames(camera, seconds)), **given)
        if file == _STDIN or Path(file or "").suffix.lower() in {".json", ".csv"}:
            return _of_traces(file or _STDIN, given)
        require_video()
        from lifesign.vitals.video.analyze import analyze_video

        return analyze_video(file or "", **given)
    except (ExtraMissing, InvalidTraces, ModelError, VideoError) as error:
        raise CommandFailed(str(error)) from None


def _of_traces(file: str, given: dict[str, Any]) -> "Analysis":
    from lifesign.vitals.analyze import analyze_samples, require_method, require_mode
    from lifesign.vitals.bodies import document_in, recording_in, recording_in_csv

    raw = sys.stdin.buffer.read() if file == _STDIN else _content(Path(file))
    if file.lower().endswith(".csv"):
        wanted = recording_in_csv(_text(raw, file))
    else:
        wanted = recording_in(document_in(raw))
    return analyze_samples(
        wanted.samples,
        mode=require_mode(given.get("mode", wanted.mode)),
        method=require_method(given.get("method", wanted.method)),
        fps=wanted.fps,
        calibration=wanted.calibration,
        debug=bool(given.get("debug")) or wanted.debug,
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CommandFailed(f"cannot read {path}: {error.strerror}") from None


def _text(raw: bytes, file: str) -> str:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CommandFailed(f"{file} is not UTF-8") from None


# Showing -------------------------------------------------------------------------------------------------------------
def _tell(report: dict[str, Any]) -> None:
    vitals = report["vitals"]
    print_fields((name.replace("_", " "), _vital(each)) for name, each in vitals.items())
    if report["warnings"]:
        print(f"warnings: {', '.join(report['warnings'])}", file=sys.stderr)
    print(report["disclaimer"], file=sys.stderr)


def _vital(vital: dict[str, Any]) -> str:
    if vital["value"] is None:
        return f"- ({vital['reason']})"
    unit = f" {vital['unit']}" if vital["unit"] else ""
    doubt = f" +- {vital['uncertainty']}" if vital["uncertainty"] is not None else ""
    return f"{vital['value']}{doubt}{unit}, confidence {vital['confidence']}"


def _series_csv(report: dict[str, Any]) -> str:
    table = io.StringIO()
    rows = csv.DictWriter(table, ["t_ms", "heart_rate", "confidence", "reason", "provisional"], lineterminator="\n")
    rows.writeheader()
    rows.writerows(report["series"])
    return table.getvalue()


def _draw(analysis: "Analysis", path: Path) -> None:
    from lifesign.vitals.extras import require_video
    from lifesign.vitals.plot import as_png, as_svg
    from lifesign.vitals.rules import ExtraMissing

    if path.suffix.lower() == ".svg":
        content = as_svg(analysis).encode()
    else:
        try:
            require_video()
        except ExtraMissing as error:
            raise CommandFailed(str(error)) from None
        content = as_png(analysis)
    with whole_file(path) as write:
        write(content)


# Making up and checking ----------------------------------------------------------------------------------------------
@app.command("synth")
def synth(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="JSON file to write; `lifesign vitals analyze` reads it.")],
    *,
    bpm: Annotated[float, typer.Option("--bpm", min=30, max=240, callback=finite, help="Heart rate.")] = 72.0,
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, max=_MAX_SECONDS, callback=finite, help="How long.")
    ] = 30.0,
    fps: Annotated[float, typer.Option("--fps", min=5, max=120, callback=finite, help="Frames per second.")] = 30.0,
    noise: Annotated[
        float, typer.Option("--noise", min=0, max=100, callback=finite, help="Of the camera, of 255.")
    ] = 0.25,
    skin: Annotated[str, typer.Option("--skin", help="light, medium or dark.")] = "light",
    seed: Annotated[int, typer.Option("--seed", min=0, help="Another one makes other noise.")] = 1,
) -> None:
    """Write traces of a face that does not exist, with a pulse of a known rate."""
    _require_vitals()
    from lifesign.vitals.signal.synth import SKINS, Scene, synthetic

    known = next((each for each in SKINS if each == skin), None)
    if known is None:
        raise WrongUsage("--skin must be light, medium or dark")
    made = synthetic(Scene(bpm=bpm, seconds=seconds, fps=fps, noise=noise, skin=known, seed=seed))
    import orjson

    document = {
        "t_ms": made.t_ms.round(3).tolist(),
        "rgb": made.rgb.round(4).tolist(),
        "rois": ["forehead", "cheek_l", "cheek_r"],
        "fps": fps,
    }
    with whole_file(out) as write:
        write(orjson.dumps(document))


@app.command("hrv")
def hrv(
    file: Annotated[Path, typer.Argument(metavar="BEATS", help="One time per line, in seconds.")],
    *,
    jitter_ms: Annotated[
        float, typer.Option("--jitter-ms", min=0, callback=finite, help="How uncertain the times are.")
    ] = 0.0,
) -> None:
    """Print the variability of given beats as JSON, without asking whether they are enough."""
    _require_vitals()
    from lifesign.vitals.rules import InvalidTraces
    from lifesign.vitals.signal.variability import hrv_from_beats

    lines = [line.strip().rstrip(",;") for line in _text(_content(file), str(file)).splitlines()]
    times = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            times.append(float(line))
        except ValueError:
            # A first line that is no number is a heading.
            if number > 1:
                raise CommandFailed(f"{file}, line {number}: {line[:40]!r} is no number") from None
    try:
        print_json(hrv_from_beats(times, jitter_ms))
    except InvalidTraces as error:
        raise CommandFailed(f"{file}: {error}") from None


def _require_vitals() -> None:
    from lifesign.vitals.extras import require_vitals
    from lifesign.vitals.rules import ExtraMissing

    try:
        require_vitals()
    except ExtraMissing as error:
        raise CommandFailed(str(error)) from None


@app.command("bench")
def bench(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="Folder of recordings with a contact sensor.")
    ] = None,
    *,
    layout: Annotated[str, typer.Option("--layout", help=f"{_LAYOUTS}.")] = "synthetic",
    methods: Annotated[str, typer.Option("--methods", help=f"Comma-separated: {_METHODS}.")] = "pos",
    window: Annotated[
        float, typer.Option("--window", min=8, max=30, callback=finite, help="Seconds of a window.")
    ] = 10.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    check: Annotated[bool, typer.Option("--check", help="End with 1 when a goal is missed; for synthetic.")] = False,
) -> None:
    """Tell how well a pulse is told from what is none: errors with and without the gate, refusals, speed.

    Made-up faces say whether the arithmetic is right, not whether people are measured well.
    """
    if layout not in _LAYOUTS.replace(" or ", ", ").split(", "):
        raise WrongUsage(f"--layout must be {_LAYOUTS}")
    if (layout == "synthetic") != (folder is None):
        raise WrongUsage("DIR goes with every --layout but synthetic, and not with that")
    if check and layout != "synthetic":
        raise WrongUsage("--check goes with --layout synthetic")
    _require_vitals()
    from dataclasses import replace

    from lifesign.vitals import bench as benching
    from lifesign.vitals.analyze import require_method
    from lifesign.vitals.rules import ExtraMissing, InvalidTraces, ModelError
    from lifesign.vitals.signal.params import DEFAULTS

    params = replace(DEFAULTS, window_s=window)
    try:
        wanted = [require_method(each.strip()) for each in methods.split(",")]
        if folder is None:
            report = benching.synthetic_report(wanted, params)
        else:
            report = {"recorded": benching.bench(_recorded(folder, layout), wanted, params)}
    except (ExtraMissing, InvalidTraces, ModelError) as error:
        raise CommandFailed(str(error)) from None
    if as_json:
        print_json(report)
    else:
        _tell_bench(report)
    missed = benching.missed_goals(report, wanted[0]) if check else []
    if missed:
        raise CommandFailed("\n  ".join(["goals are missed:", *missed]))


def _recorded(folder: Path, layout: str) -> "Iterator[Case]":
    """The recordings in a folder. Raises ExtraMissing, InvalidTraces, ModelError."""
    if layout == "traces":
        from lifesign.vitals.bench import recorded_cases

        return recorded_cases(folder)
    from lifesign.vitals.extras import require_video

    require_video()
    from lifesign.vitals.video.datasets import cases_in

    return cases_in(folder, layout)


def _tell_bench(report: dict[str, Any]) -> None:
    for name in ("clean", "degraded", "recorded"):
        if name not in report:
            continue
        print(f"{name}:")
        rows = [
            {"method": method, "windows": scored["windows"], "kept": scored["kept_pct"]}
            | scored["kept"]
            | {f"all_{key}": value for key, value in scored["ungated"].items()}
            for method, scored in report[name].items()
        ]
        print_rows(rows, _columns(rows), empty="nothing")
    for method, counted in report.get("false_accepts", {}).items():
        print(f"noise that passed ({method}): {counted['accepted']} of {counted['traces']}")
    for method, rows in report.get("by_skin_and_light", {}).items():
        print(f"by simulated skin and light ({method}):")
        print_rows(rows, _columns(rows), empty="nothing")
    for name, value in report.get("speed", {}).items():
        print(f"{name.replace('_', ' ')}: {value}")


def _columns(rows: list[dict[str, Any]]) -> list[Column]:
    def show(name: str) -> Callable[[dict[str, Any]], object]:
        return lambda row: "-" if row[name] is None else str(row[name])

    return [(name.replace("_", " "), show(name)) for name in rows[0]]
