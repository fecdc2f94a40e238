"""A resolver that answers from a script, for names that change their mind between two questions."""

from collections import deque
from collections.abc import Mapping, Sequence


class ScriptedResolver:
    """Implements `guard.Resolver`. Each name has a list of answers, one per question; the last one stays."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]]) -> None:
        self._answers = {name: deque(script) for name, script in answers.items()}
        self.asked: list[str] = []

    async def resolve(self, host: str, port: int) -> Sequence[str]:
        self.asked.append(host)
        script = self._answers.get(host)
        if not script:
            raise OSError(f"no answer for {host}")
        return script.popleft() if len(script) > 1 else script[0]
