"""The form of addresses that SMTP can carry. Pure."""

import contextlib
import re

# Narrower than RFC 5321, which nobody uses whole: no quoted local parts and no address literals. What passes can
# neither break out of its command nor trip the header parser of the standard library. Whether the local part is too
# long (64) is for the receiving server to say.
_ADDRESS = re.compile(r"[^\s\x00-\x1f\x7f-\x9f@<>()\[\]:;,\"\\]{1,252}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*")


def can_carry(address: str) -> bool:
    """Whether SMTP and a mail header can carry this address."""
    return _ADDRESS.fullmatch(with_ascii_domain(address)) is not None


def with_ascii_domain(address: str) -> str:
    """`address` with its domain as IDNA, where it can be; what cannot is left for the server to refuse."""
    local, at, domain = address.rpartition("@")
    with contextlib.suppress(UnicodeError):
        domain = domain.encode("idna").decode()
    return f"{local}{at}{domain}"
