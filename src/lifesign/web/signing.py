"""What signing in with a password and by OpenID Connect have in common: the page, and what this node knows of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast
from urllib.parse import quote, urlsplit

from starlette.requests import Request
from starlette.responses import Response

from lifesign.channels.guard import Resolver
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.secrets import derived_key, master_secrets
from lifesign.http.context import context_of
from lifesign.settings import Settings
from lifesign.web import oidc, rules, service
from lifesign.web.oidc import Attempts
from lifesign.web.pages import page

if TYPE_CHECKING:
    from lifesign.web.oidc_provider import Provider


@dataclass(frozen=True, slots=True)
class SignOn:
    """One per node that was given an OpenID provider. name: of the provider; domains: that may sign in, if any."""

    issuer: str
    name: str
    domains: frozenset[str]
    attempts: Attempts
    provider: "Provider"

    @classmethod
    def of(cls, settings: Settings, resolver: Resolver | None) -> "SignOn | None":
        """What the settings say; None when they name no provider."""
        if settings.oidc_issuer is None or settings.oidc_client_id is None:
            return None
        # A tenth of a second to load, and megabytes: only where it is used.
        from lifesign.web.oidc_provider import TOTAL_S, Client, Provider  # noqa: PLC0415 - see above

        name = settings.oidc_name or urlsplit(settings.oidc_issuer).hostname or "the provider"
        secret = settings.oidc_client_secret
        client = Client(
            settings.oidc_issuer, settings.oidc_client_id, None if secret is None else secret.get_secret_value(), name
        )
        keys = [derived_key(each, oidc.ATTEMPTS_INFO) for each in master_secrets(settings.data_dir, settings)]
        outbound = OutboundClient(settings, resolver=resolver, total_timeout_s=TOTAL_S)
        domains = oidc.domains_of(settings.oidc_domains)
        return cls(client.issuer, name, domains, Attempts(keys), Provider(client, outbound))


def sign_on_of(request: Request) -> SignOn | None:
    """The OpenID provider of this node."""
    return cast("SignOn | None", request.app.state.sign_on)


async def sign_in_page(request: Request, *, email: str, place: str, fault: str = "", status: int = 200) -> Response:
    """The page on which one signs in. place: where to go on; fault: why it did not work."""
    has_users = await context_of(request).db.read(service.has_users)
    sign_on = sign_on_of(request)
    return page(
        request,
        "signin",
        None,
        status,
        email=email[: rules.MAX_EMAIL],
        place=place,
        fault=fault,
        has_users=has_users,
        provider=None if sign_on is None else sign_on.name,
        provider_place="/signin/oidc" + ("" if place == "/" else f"?next={quote(place, safe='')}"),
    )
