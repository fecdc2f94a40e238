"""A small OpenID provider on a socket of its own: discovery, keys, and the exchange of codes, with PKCE verified.

It says of whoever comes what the test wants it to say, true or not. `authorize` stands for the provider's own page:
given where the browser was sent, it answers where the browser would be sent back to.
"""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import ECKey, KeySet, RSAKey

CLIENT_ID = "lifesign-test"
CLIENT_SECRET = "a secret of the client"

# Any, here and below: JSON.
Claims = dict[str, Any]


def _key(kid: str) -> ECKey:
    return ECKey.generate_key("P-256", {"kid": kid, "use": "sig"}, private=True)


@dataclass
class OpenIdPeer:
    """What the provider is, and how it misbehaves."""

    port: int
    now_s: int
    key: ECKey = field(default_factory=lambda: _key("first"))
    published: list[ECKey | RSAKey] | None = None
    email: str = "ada@example.org"
    subject: str = "248289761001"
    """Changes the claims of the next ID tokens."""
    claims: Claims = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    """Signs what it is given, instead of the provider's own way."""
    sign: Callable[[Claims], str] | None = None
    user_info: Claims | None = None
    described: Claims = field(default_factory=dict)
    statuses: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    _codes: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def authorize(self, location: str) -> str:
        """Let the person in; where their browser goes next."""
        asked = self.request_of(location)
        code = f"code-{len(self._codes) + 1}"
        self._codes[code] = asked
        return _path_of(asked["redirect_uri"], code=code, state=asked["state"], iss=self.issuer)

    def deny(self, location: str, error: str = "access_denied") -> str:
        """Send the browser back without a code."""
        asked = self.request_of(location)
        return _path_of(asked["redirect_uri"], error=error, state=asked["state"])

    def request_of(self, location: str) -> dict[str, str]:
        """What a browser that was sent to `location` brings."""
        parts = urlsplit(location)
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"{self.issuer}/authorize"
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        assert asked["client_id"] == CLIENT_ID
        assert asked["response_type"] == "code"
        assert asked["code_challenge_method"] == "S256"
        assert set(asked["scope"].split()) == {"openid", "email"}
        return asked

    def answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, Claims]:
        """What the provider says to one request."""
        self.asked.append(path)
        if path in self.statuses:
            return self.statuses[path], {"error": "temporarily_unavailable"}
        if (method, path) == ("GET", "/.well-known/openid-configuration"):
            return 200, self._description()
        if (method, path) == ("GET", "/keys"):
            return 200, dict(KeySet(list(self.published or [self.key])).as_dict())
        if (method, path) == ("POST", "/token"):
            return self._token(headers, body)
        if (method, path) == ("GET", "/userinfo") and headers.get("authorization") == "Bearer an access token":
            return 200, self.user_info or {}
        return 404, {"error": "not_found"}

    def _description(self) -> Claims:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/keys",
            "userinfo_endpoint": f"{self.issuer}/userinfo",
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        } | self.described

    def _token(self, headers: dict[str, str], body: bytes) -> tuple[int, Claims]:
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if not self._is_client(headers, form):
            return 401, {"error": "invalid_client"}
        asked = self._codes.pop(form.get("code", ""), None)
        digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if (
            asked is None
            or form.get("grant_type") != "authorization_code"
            or form.get("redirect_uri") != asked["redirect_uri"]
            or challenge != asked["code_challenge"]
        ):
            return 400, {"error": "invalid_grant"}
        return 200, {
            "access_token": "an access token",
            "token_type": "Bearer",
            "expires_in": 300,
            "id_token": self._id_token(asked["nonce"]),
        }

    def _is_client(self, headers: dict[str, str], form: dict[str, str]) -> bool:
        methods = self.described.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        if "client_secret_basic" in methods:
            scheme, _, told = headers.get("authorization", "").partition(" ")
            return scheme == "Basic" and unquote(base64.b64decode(told).decode()) == f"{CLIENT_ID}:{CLIENT_SECRET}"
        return (form.get("client_id"), form.get("client_secret")) == (CLIENT_ID, CLIENT_SECRET)

    def _id_token(self, nonce: str) -> str:
        claims: Claims = {
            "iss": self.issuer,
            "sub": self.subject,
            "aud": CLIENT_ID,
            "iat": self.now_s,
            "exp": self.now_s + 300,
            "nonce": nonce,
            "email": self.email,
            "email_verified": True,
        } | self.claims
        claims = {name: value for name, value in claims.items() if name not in self.left_out}
        return self.sign(claims) if self.sign else signed(claims, self.key)


def signed(claims: Claims, key: ECKey) -> str:
    """An ID token with this key's signature."""
    return jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)


def unsigned(claims: Claims) -> str:
    """An ID token that asks to be believed without a signature."""
    return _compact({"alg": "none", "typ": "JWT"}, claims, lambda _: b"")


def signed_with_what_is_public(claims: Claims, key: ECKey) -> str:
    """An ID token whose secret is the published key itself. By hand: the library refuses to make one."""
    secret = key.as_pem(private=False)
    return _compact({"alg": "HS256", "kid": key.kid}, claims, lambda said: hmac.digest(secret, said, "sha256"))


def _compact(header: Claims, claims: Claims, sign: Callable[[bytes], bytes]) -> str:
    said = b".".join(_base64(json.dumps(part).encode()) for part in (header, claims))
    return b".".join([said, _base64(sign(said))]).decode()


def _base64(content: bytes) -> bytes:
    return base64.urlsafe_b64encode(content).rstrip(b"=")


def another_key(kid: str) -> ECKey:
    """A key that says it is `kid`."""
    return _key(kid)


def _path_of(redirect_uri: str, **query: str) -> str:
    return f"{urlsplit(redirect_uri).path}?{urlencode(query)}"


@contextmanager
def openid_peer(now_s: int) -> Iterator[OpenIdPeer]:
    """A provider that runs. now_s: its clock, in seconds since 1970."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._serve(b"")

        def do_POST(self) -> None:
            self._serve(self.rfile.read(int(self.headers["Content-Length"])))

        def _serve(self, body: bytes) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, told = peer.answer(self.command, self.path, headers, body)
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    peer = OpenIdPeer(server.server_address[1], now_s)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
