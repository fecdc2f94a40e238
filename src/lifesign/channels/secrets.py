"""Secrets at rest: the master secret of the installation, and channel settings sealed under keys derived from it."""

import base64
import binascii
import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from lifesign.channels.rules import SecretUnreadable
from lifesign.secretfile import kept_secret
from lifesign.settings import Settings

MIN_SECRET_CHARACTERS: Final = 32
CHANNEL_SECRETS_INFO: Final = "lifesign/channel-secrets/v1"

_VERSION: Final = "v1"
_KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SECRET_FILE: Final = "secret.key"  # noqa: S105 - the name of a file


def derived_key(master: str, info: str) -> bytes:
    """32 bytes for one purpose, HKDF-SHA256 of the master secret; `info` names the purpose."""
    return HKDF(hashes.SHA256(), _KEY_BYTES, salt=None, info=info.encode()).derive(master.encode())


class SecretBox:
    """Seals with the present master secret, opens with it and the previous ones."""

    def __init__(self, master: str, previous: Sequence[str] = ()) -> None:
        keys = [derived_key(each, CHANNEL_SECRETS_INFO) for each in (master, *previous)]
        self._ciphers = {_key_id(key): AESGCM(key) for key in reversed(keys)}
        self._key_id = _key_id(keys[0])

    @classmethod
    def from_settings(cls, data_dir: Path, settings: Settings) -> "SecretBox":
        """Build the box of an installation. Raises SecretKeyUnusable."""
        present, *previous = master_secrets(data_dir, settings)
        return cls(present, previous)

    @property
    def key_id(self) -> str:
        """First 8 hex digits of the SHA-256 of the key that seals."""
        return self._key_id

    def seal(self, text: str, channel_id: str, path: str, *, kind: str = "channels") -> str:
        """`v1.<key id>.<nonce>.<ciphertext and tag>`, bound to this field of this channel, or of something else."""
        nonce = os.urandom(_NONCE_BYTES)
        sealed = self._ciphers[self._key_id].encrypt(nonce, text.encode(), _place(kind, channel_id, path))
        return ".".join((_VERSION, self._key_id, _encode(nonce), _encode(sealed)))

    def open(self, token: str, channel_id: str, path: str, *, kind: str = "channels") -> str:
        """Return the text that `seal` was given. Raises SecretUnreadable."""
        try:
            version, key_id, nonce, sealed = token.split(".")
            if version != _VERSION:
                raise SecretUnreadable(channel_id, path)
            return (
                self._ciphers[key_id].decrypt(_decode(nonce), _decode(sealed), _place(kind, channel_id, path)).decode()
            )
        except (ValueError, KeyError, InvalidTag) as error:
            raise SecretUnreadable(channel_id, path) from error


def master_secrets(data_dir: Path, settings: Settings) -> list[str]:
    """The master secret, made when there is none, and the previous ones. Raises SecretKeyUnusable."""
    previous = settings.secret_key_previous.get_secret_value() if settings.secret_key_previous else ""
    kept = [part.strip() for part in previous.split(",") if part.strip()]
    return [load_or_make_secret_key(data_dir, settings), *kept]


def load_or_make_secret_key(data_dir: Path, settings: Settings) -> str:
    """Return the master secret: the setting, else the file in the data directory, else a new file.

    Raises SecretKeyUnusable for a file that is too short or cannot be read: a new secret in its place would make
    every stored channel unreadable.
    """
    if settings.secret_key is not None:
        return settings.secret_key.get_secret_value()
    return kept_secret(data_dir / _SECRET_FILE, _new_secret, min_characters=MIN_SECRET_CHARACTERS)


def _new_secret() -> str:
    return secrets.token_urlsafe(48)


def _key_id(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()[:8]


def _place(kind: str, owner_id: str, path: str) -> bytes:
    return f"{kind}|{owner_id}|{path}".encode()


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode("ascii")


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error
