"""R4: people said that they were not served well. Said by attribute; no words are looked for."""

from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.findings import Hit, Rule, View, named


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        if placed.record.signal_type == "user_signal":
            yield Hit((named(placed.record.agent),), placed)


RULE: Final = Rule(
    4,
    "user_signal",
    "Read the sessions with negative feedback on {subject} and write one eval case for each cause.",
    own=frozenset({"agent"}),
    most="medium",
    hits=_hits,
)
