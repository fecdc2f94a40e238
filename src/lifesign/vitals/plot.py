"""A picture of an analysis: pulse wave, spectrum and tachogram, as SVG or PNG."""

from dataclasses import dataclass
from html import escape

import numpy as np

from lifesign.vitals.signal.params import DISCLAIMER, FloatArray
from lifesign.vitals.signal.report import Analysis, Curve

_WIDTH, _PANEL, _GAP, _MARGIN = 900, 180, 46, 60
_MOST_POINTS = 2000
_INK, _LINE, _FAINT = "#222222", "#0b6e99", "#bbbbbb"


@dataclass(frozen=True, slots=True)
class Panel:
    """One curve with its title; x and y are told at the ends of the axes."""

    title: str
    curve: Curve
    x_unit: str
    y_unit: str
    has_dots: bool = False


def panels_of(analysis: Analysis) -> tuple[Panel, ...]:
    """What there is to be seen of an analysis."""
    rate = analysis.report["vitals"]["heart_rate"]
    said = (
        f"{rate['value']} bpm, confidence {rate['confidence']}" if rate["value"] else f"no heart rate: {rate['reason']}"
    )
    return (
        Panel(f"Pulse wave ({said})", analysis.pulse, "s", ""),
        Panel("Spectrum", analysis.power, "bpm", ""),
        Panel("Tachogram (intervals between beats)", analysis.tachogram, "s", "ms", has_dots=True),
    )


def as_svg(analysis: Analysis) -> str:
    """The picture, readable without a program of ours."""
    panels = panels_of(analysis)
    height = len(panels) * (_PANEL + _GAP) + _GAP
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"'
    parts = [
        f'{head} font-family="sans-serif" font-size="13" fill="{_INK}">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for index, panel in enumerate(panels):
        top = _GAP // 2 + index * (_PANEL + _GAP)
        parts.append(f'<text x="{_MARGIN}" y="{top + 12}">{escape(panel.title)}</text>')
        points = _points(panel.curve, top + 20)
        bottom = top + _PANEL
        parts.append(f'<path d="M{_MARGIN} {top + 20}V{bottom}H{_WIDTH - 20}" fill="none" stroke="{_FAINT}"/>')
        for x, y, text in _labels(panel, top + 20, bottom):
            parts.append(f'<text x="{x}" y="{y}" font-size="11">{escape(text)}</text>')
        if len(points):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(f'<polyline points="{line}" fill="none" stroke="{_LINE}"/>')
        if panel.has_dots:
            parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2" fill="{_LINE}"/>' for x, y in points]
    parts.append(f'<text x="{_MARGIN}" y="{height - 10}" font-size="11">{escape(DISCLAIMER)}</text></svg>')
    return "\n".join(parts) + "\n"


def as_png(analysis: Analysis) -> bytes:
    """The same as a picture of points. Needs the extra `vitals-video`."""
    import cv2  # noqa: PLC0415 - of another extra

    panels = panels_of(analysis)
    height = len(panels) * (_PANEL + _GAP) + _GAP
    image = np.full((height, _WIDTH, 3), 255, np.uint8)
    ink, line, faint = (_bgr(each) for each in (_INK, _LINE, _FAINT))

    def write(text: str, x: int, y: int) -> None:
        cv2.putText(image, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 0.4, ink, 1, cv2.LINE_AA)

    for index, panel in enumerate(panels):
        top = _GAP // 2 + index * (_PANEL + _GAP)
        bottom = top + _PANEL
        write(panel.title, _MARGIN, top + 12)
        corners = np.array([[_MARGIN, top + 20], [_MARGIN, bottom], [_WIDTH - 20, bottom]], np.int32)
        cv2.polylines(image, [corners], isClosed=False, color=faint)
        for x, y, text in _labels(panel, top + 20, bottom):
            write(text, x, y)
        points = np.round(_points(panel.curve, top + 20)).astype(np.int32)
        if len(points):
            cv2.polylines(image, [points], isClosed=False, color=line, lineType=cv2.LINE_AA)
        if panel.has_dots:
            for x, y in points:
                cv2.circle(image, (int(x), int(y)), 2, line, -1)
    write(DISCLAIMER, _MARGIN, height - 10)
    return bytes(cv2.imencode(".png", image)[1])


def _bgr(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    return blue, green, red


def _points(curve: Curve, top: int) -> FloatArray:
    """(n, 2) in pixels; every so many points of long curves."""
    step = max(1, len(curve.x) // _MOST_POINTS)
    x, y = curve.x[::step], curve.y[::step]
    if not len(x):
        return np.zeros((0, 2))
    across = (x - x.min()) / (np.ptp(x) or 1.0)
    up = (y - y.min()) / (np.ptp(y) or 1.0)
    high = _PANEL - 20
    return np.column_stack([_MARGIN + across * (_WIDTH - 20 - _MARGIN), top + (1 - up) * (high - 6) + 3])


def _labels(panel: Panel, top: int, bottom: int) -> list[tuple[int, int, str]]:
    curve = panel.curve
    if not len(curve.x):
        return [(_MARGIN + 12, (top + bottom) // 2, "nothing to show")]
    labels = [
        (_MARGIN, bottom + 14, f"{curve.x.min():.0f} {panel.x_unit}"),
        (_WIDTH - 70, bottom + 14, f"{curve.x.max():.0f} {panel.x_unit}"),
    ]
    if panel.y_unit:
        labels += [(4, top + 8, f"{curve.y.max():.0f} {panel.y_unit}"), (4, bottom, f"{curve.y.min():.0f}")]
    return labels
