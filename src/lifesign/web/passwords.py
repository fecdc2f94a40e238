"""Passwords: argon2id and zxcvbn, both in worker threads, a few at a time."""

import asyncio
import secrets

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from lifesign.web import rules

# Each takes 64 MiB and a core for a moment; more of them would not be quicker.
_AT_ONCE = 2
# zxcvbn takes no more, and what it takes longer for is strong.
_JUDGED = 72
_HASHER = PasswordHasher()


class Passwords:
    """One per node."""

    def __init__(self) -> None:
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._nobodys: str | None = None

    async def hashed(self, password: str) -> str:
        """What is kept of a password."""
        async with self._turns:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def is_it(self, kept: str | None, password: str) -> bool:
        """Whether this is the password of which `kept` is kept; it takes as long where there is none."""
        if kept is None and self._nobodys is None:
            self._nobodys = await self.hashed(secrets.token_hex())
        async with self._turns:
            is_it = await asyncio.to_thread(_verified, kept or self._nobodys or "", password)
        return kept is not None and is_it

    async def fault(self, password: str, email: str) -> str | None:
        """What is wrong with a new password."""
        fault = rules.length_fault(password)
        if fault is not None:
            return fault
        async with self._turns:
            return await asyncio.to_thread(_strength_fault, password, email)


def _verified(kept: str, password: str) -> bool:
    try:
        return _HASHER.verify(kept, password)
    except (VerificationError, InvalidHashError):
        return False


def _strength_fault(password: str, email: str) -> str | None:
    # Lists of words, 14 MiB of them, for the few times that somebody chooses a password.
    from zxcvbn import zxcvbn  # type: ignore[import-untyped]  # noqa: PLC0415 - see above; it comes without types

    told = zxcvbn(password[:_JUDGED], user_inputs=["lifesign", email, *email.split("@")])
    return rules.strength_fault(int(told["score"]), str(told["feedback"]["warning"] or ""))
