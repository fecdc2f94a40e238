"""The OpenID provider of this server: where people are sent, and who it says they are.

Authlib knows the protocol: requests, the ways in which a client shows itself, what claims have to say. Its clients for
HTTP are not used: requests of this server go through `channels.outbound`, which bounds and guards them.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.rfc6749.parameters import prepare_grant_uri, prepare_token_request
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from authlib.oidc.discovery import get_well_known_url
from joserfc import jwt
from joserfc.errors import BadSignatureError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet

from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply, HttpRequest, Permanent, Retry, Unknown
from lifesign.clock import EpochMs
from lifesign.web import oidc, rules
from lifesign.web.oidc import Attempt, Identity, SignInFailed

TOTAL_S: Final = 10.0
_KEPT_MS: Final = 600_000
# One after the other everybody would wait for a provider that is silent, each of them for all of that time.
_AWAY_MS: Final = 5000
_LEEWAY_S: Final = 60
_MAX_SUBJECT: Final = 255
_OK: Final = 200
_NEEDED: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri")
# Signatures that only the provider can make. `none` is none, and with HS256 its public key would be the secret.
_ALGORITHMS: Final = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)

_KINDS: Final = frozenset({"RSA", "EC", "OKP"})

# Any, here and below: members of JSON objects that the provider sends.
Document = Mapping[str, Any]


class _Known(NamedTuple):
    """What the provider publishes of itself, or why it could not be had; until when that is believed."""

    document: Document | SignInFailed
    until: EpochMs


@dataclass(frozen=True, slots=True)
class Client:
    """What this server is to the provider, and how people are told of that."""

    issuer: str
    client_id: str
    client_secret: str | None
    name: str


class Provider:
    """One per node. What the provider publishes of itself is kept for ten minutes."""

    def __init__(self, client: Client, outbound: OutboundClient) -> None:
        self._client = client
        self._outbound = outbound
        self._one_at_a_time = asyncio.Lock()
        self._metadata: _Known | None = None

    async def place(self, attempt: Attempt, redirect_uri: str, now: EpochMs) -> str:
        """Where to send somebody who wants to sign in. Raises SignInFailed."""
        metadata = await self._published(now)
        uri: str = prepare_grant_uri(
            metadata["authorization_endpoint"],
            self._client.client_id,
            "code",
            redirect_uri=redirect_uri,
            scope="openid email",
            state=attempt.state,
            nonce=attempt.nonce,
            code_challenge=create_s256_code_challenge(attempt.verifier),
            code_challenge_method="S256",
        )
        return uri

    async def identity(self, code: str, attempt: Attempt, redirect_uri: str, now: EpochMs) -> Identity:
        """Who came back with `code`. Raises SignInFailed."""
        metadata = await self._published(now)
        token = await self._exchanged(metadata, code, attempt, redirect_uri)
        claims = await self._claims(metadata, token, attempt, now)
        told: Document = claims
        if "email" not in claims and "userinfo_endpoint" in metadata:
            told = await self._user_info(metadata, token, claims["sub"])
        return self._vouched_for(claims["sub"], told)

    def check_issuer(self, told: str | None) -> None:
        """That an answer comes from this provider and not from another one (RFC 9207). Raises SignInFailed."""
        if told is not None and told != self._client.issuer:
            raise oidc.odd(self._client.name, "it comes from another provider")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._outbound.aclose()

    async def _published(self, now: EpochMs) -> Document:
        async with self._one_at_a_time:
            if self._metadata is None or self._metadata.until <= now:
                self._metadata = await self._described(now)
            document = self._metadata.document
        if isinstance(document, SignInFailed):
            raise SignInFailed(document.kind, document.status, str(document), document.why)
        return document

    async def _described(self, now: EpochMs) -> _Known:
        url = get_well_known_url(self._client.issuer, external=True)
        try:
            document = await self._asked(url, {}, "its description of itself")
            self._check_description(document)
        except SignInFailed as error:
            return _Known(error, EpochMs(now + _AWAY_MS))
        return _Known(document, EpochMs(now + _KEPT_MS))

    def _check_description(self, document: Document) -> None:
        if document.get("issuer") != self._client.issuer:
            raise oidc.odd(self._client.name, "it calls itself by another issuer than the settings of this server do")
        for each in (*_NEEDED, "userinfo_endpoint"):
            address = document.get(each) if each in document or each in _NEEDED else self._client.issuer
            # The settings take an issuer without TLS on the loopback only.
            is_plain = isinstance(address, str) and address.startswith("http://") and self._is_plain
            if not isinstance(address, str) or not (address.startswith("https://") or is_plain):
                raise oidc.odd(self._client.name, f"its {each} is no https address")

    @property
    def _is_plain(self) -> bool:
        return self._client.issuer.startswith("http://")

    async def _exchanged(self, metadata: Document, code: str, attempt: Attempt, redirect_uri: str) -> Document:
        body = prepare_token_request(
            "authorization_code", redirect_uri=redirect_uri, code=code, code_verifier=attempt.verifier
        )
        url = metadata["token_endpoint"]
        headers = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "application/json"}
        auth = ClientAuth(self._client.client_id, self._client.client_secret, self._way_to_show(metadata))
        url, headers, body = auth.prepare("POST", url, headers, body)
        request = HttpRequest(url, headers, body.encode())
        reply = await self._outbound.post(request, guarded=self._is_guarded(url))
        return self._read(reply, "the answer to the code")

    def _way_to_show(self, metadata: Document) -> str:
        if self._client.client_secret is None:
            return "none"
        # Basic is what providers take that say nothing.
        offered = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        is_post_only = "client_secret_basic" not in offered and "client_secret_post" in offered
        return "client_secret_post" if is_post_only else "client_secret_basic"

    async def _claims(self, metadata: Document, token: Document, attempt: Attempt, now: EpochMs) -> CodeIDToken:
        id_token = token.get("id_token")
        if not isinstance(id_token, str):
            raise oidc.odd(self._client.name, "there is no ID token")
        try:
            try:
                # Asked anew each time: a key that was withdrawn must not let anybody in for as long as it is kept.
                published = await self._asked(metadata["jwks_uri"], {}, "its keys")
                decoded = jwt.decode(id_token, _usable(published), algorithms=_ALGORITHMS)
            except (BadSignatureError, InvalidKeyIdError) as error:
                raise oidc.odd(self._client.name, "the ID token is not signed by its key") from error
            claims = CodeIDToken(
                decoded.claims,
                decoded.header,
                options={
                    "iss": {"essential": True, "value": self._client.issuer},
                    "aud": {"essential": True, "value": self._client.client_id},
                },
                params={
                    "nonce": attempt.nonce,
                    "client_id": self._client.client_id,
                    "access_token": token.get("access_token"),
                },
            )
            claims.validate(now=now // 1000, leeway=_LEEWAY_S)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise oidc.odd(self._client.name, f"the ID token is refused: {_words(error)}") from error
        subject = claims["sub"]
        if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT or "\x00" in subject:
            raise oidc.odd(self._client.name, "the ID token is refused: sub")
        return claims

    async def _user_info(self, metadata: Document, token: Document, subject: str) -> Document:
        headers = {"Authorization": f"Bearer {token.get('access_token')}", "Accept": "application/json"}
        told = await self._asked(metadata["userinfo_endpoint"], headers, "what it knows of you")
        if told.get("sub") != subject:
            raise oidc.odd(self._client.name, "it speaks of two people")
        return told

    def _vouched_for(self, subject: str, told: Document) -> Identity:
        email = told.get("email")
        is_verified = told.get("email_verified")
        # Some say it as text.
        if not isinstance(email, str) or not (is_verified is True or is_verified == "true"):
            raise oidc.unverified(self._client.name)
        checked = rules.checked_email(email)
        if checked is None:
            raise oidc.odd(self._client.name, "your e-mail address is none")
        return Identity(subject, checked)

    async def _asked(self, url: str, headers: Mapping[str, str], what: str) -> Document:
        return self._read(await self._outbound.get(url, headers, guarded=self._is_guarded(url)), what)

    def _is_guarded(self, url: str) -> bool:
        """Where the operator said that the provider is, it may be asked; elsewhere it may be as messages may."""
        return urlsplit(url)[:2] != urlsplit(self._client.issuer)[:2]

    def _read(self, reply: HttpReply | Retry | Permanent | Unknown, what: str) -> Document:
        if not isinstance(reply, HttpReply):
            raise oidc.away(self._client.name, f"{what}: {reply.why}")
        try:
            read = json.loads(reply.body) if reply.is_whole else None
        except ValueError:
            read = None
        if reply.status != _OK or not isinstance(read, dict):
            error = read.get("error") if isinstance(read, dict) else None
            if error == "invalid_grant":
                raise oidc.odd(self._client.name, "it does not know the code any more")
            said = f", {error[:100]}" if isinstance(error, str) else ""
            raise oidc.away(self._client.name, f"{what}: status {reply.status}{said}")
        return read


def _usable(published: Document) -> KeySet:
    """The keys that can have signed something: a secret that somebody published is none of them."""
    listed = [each for each in published["keys"] if each.get("kty") in _KINDS and each.get("use", "sig") == "sig"]
    return KeySet.import_key_set({"keys": listed})


def _words(error: Exception) -> str:
    """What is wrong, without anything that the token says."""
    claim = getattr(error, "claim", None)
    return claim if isinstance(claim, str) else str(getattr(error, "error", type(error).__name__))
