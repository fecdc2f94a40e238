"""What a benchmark hands back, and the table it becomes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure must be. `is_floor`: too low is bad (a rate); otherwise too high is (a time)."""

    value: float
    is_floor: bool = False

    def is_met_by(self, value: float) -> bool:
        return value >= self.value if self.is_floor else value <= self.value


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured quantity: a value per round, and the same of the reference in the rounds between."""

    name: str
    values: Sequence[float]
    unit: str
    goal: Goal | None = None
    reference: Sequence[float] = ()
    reference_name: str = ""

    @property
    def value(self) -> float:
        return median(self.values)

    @property
    def ratio(self) -> float | None:
        """The figure as a part of its reference."""
        base = median(self.reference) if self.reference else 0
        return self.value / base if base else None

    @property
    def verdict(self) -> Literal["met", "missed", ""]:
        if self.goal is None:
            return ""
        return "met" if self.goal.is_met_by(self.value) else "missed"

    def as_json(self) -> dict[str, Any]:  # Any: JSON
        told: dict[str, Any] = {"name": self.name, "median": self.value, "unit": self.unit, "rounds": list(self.values)}
        if self.goal is not None:
            told |= {"goal": self.goal.value, "goalIs": "floor" if self.goal.is_floor else "ceiling"}
            told |= {"met": self.verdict == "met"}
        if self.ratio is not None:
            told |= {"reference": self.reference_name, "referenceRounds": list(self.reference), "ratio": self.ratio}
        return told


def table(title: str, figures: Iterable[Figure]) -> Table:
    """The figures of one benchmark, for a person."""
    drawn = Table("figure", "median", "", "goal", "", "ratio", "reference", title=title, title_justify="left")
    for column in (1, 3, 5):
        drawn.columns[column].justify = "right"
    for figure in figures:
        goal = "" if figure.goal is None else f"{'>=' if figure.goal.is_floor else '<='} {shown(figure.goal.value)}"
        reference = f"{figure.reference_name} ({shown(median(figure.reference))})" if figure.reference else ""
        ratio = "" if figure.ratio is None else f"{figure.ratio:.2f}"
        spread = f"{figure.unit}  [{shown(min(figure.values))} .. {shown(max(figure.values))}]"
        drawn.add_row(
            figure.name,
            shown(figure.value),
            spread if len(figure.values) > 1 else figure.unit,
            goal,
            figure.verdict,
            ratio,
            reference,
        )
    return drawn


def shown(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
