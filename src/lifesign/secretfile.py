"""Secrets that are made once and kept in the data directory, each in a file that only its owner reads."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path


class SecretKeyUnusable(Exception):
    """A file with a secret is there but cannot serve; the server must not start and make another."""


def kept_secret(path: Path, make: Callable[[], str], *, min_characters: int) -> str:
    """The secret in a file, which is made when it is missing.

    Raises SecretKeyUnusable for a file that is too short or cannot be read: a new secret in its place would make
    worthless whatever depends on the old one.
    """
    if not path.exists():
        _make(path, make())
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretKeyUnusable(f"{path} cannot be read") from error
    if len(secret) < min_characters:
        raise SecretKeyUnusable(f"{path} must hold at least {min_characters} characters; restore a backup of it")
    return secret


def _make(path: Path, secret: str) -> None:
    """Put a complete file in place in one step; a file that another process put there first stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secret + "\n")
            file.flush()
            os.fsync(file.fileno())
        _put_in_place(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    # Without this a power cut could leave what depends on a secret whose file never reached the disk.
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _put_in_place(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # unlike a rename, never replaces what is there
    except FileExistsError:
        return
    except OSError:  # a file system without hard links, such as some that containers mount
        draft.replace(path)
