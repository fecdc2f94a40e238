"""Which pings of a heartbeat count, and for what: kept with the heartbeat, judged where pings arrive."""

import json
from dataclasses import dataclass, fields


@dataclass(frozen=True, slots=True)
class PingRules:
    """Which pings of a heartbeat count, and for what."""

    methods: str = ""
    start_kw: str = ""
    success_kw: str = ""
    failure_kw: str = ""
    filter_subject: bool = False
    filter_body: bool = False
    filter_http_body: bool = False
    filter_default_fail: bool = False

    @classmethod
    def of(cls, text: str | None) -> "PingRules":
        """From how they are kept."""
        return cls() if text is None else cls(**json.loads(text))

    def text(self) -> str | None:
        """How they are kept: None for the usual ones."""
        told = self.told()
        return json.dumps(told) if told else None

    def told(self) -> dict[str, str | bool]:
        """Name and value of each that is not as usual."""
        kept = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in kept.items() if value != getattr(_USUAL, name)}


_USUAL = PingRules()
