"""The way to a server on the standard library: no redirects, TLS that is verified, no proxy to this very machine."""

import ssl
import urllib.request
from urllib.parse import urlsplit

_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """The server never redirects; whoever does must not be handed the credentials."""

    def redirect_request(self, *_: object) -> None:
        return None


def is_address(url: str) -> bool:
    """Whether this can be the address of a server."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return False
    is_plain = parts.username is None and not parts.query and not parts.fragment
    return parts.scheme in {"http", "https"} and bool(host) and port != 0 and is_plain


def opener_of(url: str, ca_file: str | None) -> urllib.request.OpenerDirector:
    """What opens requests to a server. Raises ValueError for an address that is none, OSError for a bad CA file."""
    if not is_address(url):
        raise ValueError(f"{url!r} is not the address of a server; write for example https://lifesign.example.org")
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    # A proxy could not reach a server of this machine, and should not see the credentials.
    is_near = urlsplit(url).hostname in _LOOPBACK
    return urllib.request.build_opener(
        _NoRedirects, urllib.request.ProxyHandler({} if is_near else None), urllib.request.HTTPSHandler(context=context)
    )
