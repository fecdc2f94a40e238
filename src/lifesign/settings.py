"""Every setting of the server, its default and its `LIFESIGN_*` variable."""

import difflib
import ipaddress
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

_HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_]([A-Za-z0-9_-]{0,62})(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,62}))*\.?")

# Whoever can read what goes to and from a provider can sign in as anybody.
_ISSUER = re.compile(
    r"https://[^\s/?#@]+(/[^\s?#]*)?|http://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?(/[^\s?#]*)?"
)

_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/?#]+")

_BASE = re.compile(r"https?://[^\s/?#@]+(/[^\s?#]*)?")

MAX_PORT = 65535
_MANY = 10**15
_STORES = ("sqlite", "postgresql", "clickhouse", "clickhouses", "chdb")


# How like a setting a variable must be to be taken for it: `SMTP_USER` is, the variables of the commands are not.
_ALIKE = 0.8


class Settings(BaseSettings):
    """Read once at start, from the environment; command-line options win over it."""

    model_config = SettingsConfigDict(env_prefix="LIFESIGN_", extra="ignore", frozen=True, env_ignore_empty=True)

    # Where it runs
    data_dir: Path = Field(Path("data"), description="Directory of the SQLite file, the secret key and the lock.")
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    public_url: str | None = Field(None, description="Address people reach this server at, without a trailing slash.")
    database_url: SecretStr | None = Field(
        None, description="postgresql://... ; SQLite in the data directory when unset."
    )
    telemetry_url: SecretStr | None = Field(
        None,
        description="Where records of telemetry go: sqlite:///path, postgresql://..., clickhouse://... ; when unset, "
        "telemetry.db in the data directory, or the database of `DATABASE_URL`.",
    )
    log_format: Literal["auto", "json", "text"] = Field("auto", description="auto: text on a terminal, JSON elsewhere.")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe level to log.")

    # Secrets
    admin_key: SecretStr | None = Field(
        None, description="An admin key of your own; without it one is made and printed once."
    )
    secret_key: SecretStr | None = Field(
        None, description="Master secret; made and kept in the data directory when unset."
    )
    secret_key_previous: SecretStr | None = Field(
        None, description="Older master secrets, comma-separated, still readable."
    )

    # Limits
    max_heartbeats: int = Field(100_000, ge=1, description="Heartbeats per project.")
    min_repeat_seconds: int = Field(60, ge=1, description="Shortest period at which a policy's last step repeats.")

    # Pings
    ping_body_limit: int = Field(10_000, ge=0, description="Bytes kept of what a ping carries; 0: up to 10 MiB.")
    ping_bodies_kept: int = Field(100, ge=0, description="Newest pings of a heartbeat whose bodies are kept.")
    ping_dedup_seconds: int = Field(
        300, ge=0, description="A ping with the same run id and signal counts once within this time; 0: always."
    )
    ping_smtp_listen: str | None = Field(None, description="host:port to take pings by e-mail on; off when unset.")
    ping_email_domain: str | None = Field(None, description="Domain of the addresses that people are shown.")
    ping_smtp_cert: Path | None = Field(None, description="PEM file with the certificate that STARTTLS offers.")
    ping_smtp_key: Path | None = Field(None, description="PEM file with its key.")
    metrics_key: SecretStr | None = Field(None, description="Key of `/api/v3/metrics/`, which is closed without one.")
    master_badge_label: str = Field("Lifesign", description="What the badge of a whole project says beside its state.")
    ping_create: bool = Field(default=True, description="Let a first ping make its heartbeat, with create=1.")

    # Self-service projects
    signup_upgrade_secret: SecretStr | None = Field(
        None, description="Secret behind recovery and upgrade codes; made and kept when unset, `off` for none."
    )
    provision_auto_graduate: bool = Field(default=True, description="Let provisioned projects stay for good.")
    sandbox_days: int = Field(14, ge=1, le=3650, description="Days until a sandbox expires.")
    quota_spans: int = Field(
        1_000_000, ge=0, le=_MANY, description="Distinct records a month that a self-service project takes; 0: any."
    )
    mint_limit_per_hour: int = Field(120, ge=0, le=_MANY, description="New projects per network and hour; 0: any.")
    mint_limit_total_per_hour: int = Field(2000, ge=0, le=_MANY, description="New projects per hour; 0: any.")
    recover_limit_per_hour: int = Field(60, ge=0, le=_MANY, description="Recoveries per network and hour; 0: any.")
    # Self-service keys of the Vitals API
    keys_per_address_per_hour: int = Field(
        0, ge=0, le=_MANY, description="Keys of the Vitals API that one network may take in an hour; 0: any."
    )

    trusted_proxies: str = Field(
        "", description="CIDRs, comma-separated, of proxies whose X-Forwarded-For is believed."
    )

    # Telemetry that is sent here
    otlp_max_body_bytes: int = Field(
        20_971_520, ge=1, le=_MANY, description="Bytes of a request with spans, as sent and as inflated."
    )
    otlp_inflight_bytes: int = Field(
        50_331_648, ge=1024, le=_MANY, description="Bytes of such requests, inflated, that are in hand at once."
    )
    otlp_json_success_status: int = Field(202, description="Status of success for spans in JSON; 200 for strict peers.")
    otlp_cors_origins: str = Field(
        "", description="Origins, comma-separated, of pages that may send spans from browsers; `*` for any."
    )
    contact_email: str | None = Field(None, description="Whom to write to, as `/contact.json` tells it.")
    contact_url: str | None = Field(None, description="Where to ask, as `/contact.json` tells it.")
    prices_file: Path | None = Field(None, description="JSON file of what models cost, for calls that tell no cost.")
    slow_ms_tool: int = Field(30_000, ge=0, le=_MANY, description="Milliseconds from which on a tool call is slow.")
    slow_ms_llm: int = Field(60_000, ge=0, le=_MANY, description="The same of a call of a language model.")
    slow_ms_http: int = Field(
        10_000, ge=0, le=_MANY, description="The same of HTTP requests, retrieval, embedding and memory."
    )
    slow_ms_agent: int = Field(600_000, ge=0, le=_MANY, description="The same of agents and workflows.")
    slow_ms_other: int = Field(60_000, ge=0, le=_MANY, description="The same of anything else.")
    # Telemetry in ClickHouse
    spool_max_bytes: int = Field(
        1_073_741_824, ge=1_048_576, le=_MANY, description="Bytes of records that may wait on disk for ClickHouse."
    )

    # Systems
    system_interval_seconds: int = Field(600, ge=1, le=86_400, description="How often a system is expected to report.")
    system_alive_seconds: int = Field(
        900, ge=1, le=86_400, description="A system that reported within this time reads `alive`, then `dead`."
    )
    system_alert_seconds: int = Field(
        1200, ge=1, le=86_400, description="Silence of a system after which its incident opens."
    )
    inventory_ignore: str = Field(
        "**/uptime*,**/load*,**/timestamp,**/memory/used*,**/memory/free*,**/memory/available*,"
        "**/disk*/used*,**/disk*/free*,**/temperature*",
        description="Globs over the JSON Pointer, comma-separated, of what may change in an inventory without notice.",
    )

    # When too much happens at once
    storm_min: int = Field(
        20, ge=0, description="More missed deadlines of a project within a minute are told to people as one; 0: never."
    )
    flap_limit: int = Field(
        4, ge=0, description="A heartbeat that fired more often than this of late is held back; 0: never."
    )

    # When nobody can be reached, or nobody could listen
    unattended_after_seconds: int = Field(
        1800, ge=1, description="Wait after the last step before an incident counts as unattended."
    )
    blind_after_seconds: int = Field(
        10, ge=3, description="A longer silence of all nodes counts as time in which nobody listened."
    )
    blind_min_hold_seconds: int = Field(10, ge=0, description="Shortest wait for a check-in after such a time.")
    blind_max_hold_seconds: int = Field(120, ge=0, description="Longest wait for a check-in after such a time.")

    deadman_url: str | None = Field(
        None, description="Asked by GET every minute while all is well, so that another monitor can watch this one."
    )

    # Retention
    event_days: int = Field(90, ge=1, description="Days for which events other than check-ins are kept.")

    telemetry_retention_days: int = Field(
        35, ge=1, le=3650, description="Days for which records of telemetry are kept."
    )

    # Bots
    bots_stopped: bool = Field(default=False, description="No run of a bot begins on this server.")
    bot_run_days: int = Field(90, ge=1, le=3650, description="Days for which runs of bots are kept.")
    bot_transcript_days: int = Field(30, ge=1, le=3650, description="Days for which transcripts of runs are kept.")

    # Diagnosis
    ready_min_count: int = Field(
        2, ge=1, le=_MANY, description="Records of one issue from which on a diagnosis is ready to be acted on."
    )
    diagnose_max_records: int = Field(
        2_000_000,
        ge=1,
        le=_MANY,
        description="Records of a window that a diagnosis reads; the newest, if there are more.",
    )
    packet_retention_days: int = Field(90, ge=1, le=3650, description="Days for which packets are kept.")

    # Language models, for bots of the default project
    openai_api_key: SecretStr | None = Field(None, description="Key of a provider that speaks Chat Completions.")
    openai_base_url: str | None = Field(None, description="Its address, where it is not that of OpenAI itself.")
    anthropic_api_key: SecretStr | None = Field(None, description="Key of a provider that speaks the Messages API.")
    anthropic_base_url: str | None = Field(None, description="Its address, where it is not that of Anthropic itself.")

    # Vitals
    demo: bool = Field(default=True, description="Let anybody try an analysis of vitals without a key.")
    vitals_workers: int | None = Field(
        None, ge=1, le=256, description="Processes that analyse; one less than there are CPUs when unset."
    )
    vitals_upload_s: int = Field(600, ge=1, le=3600, description="Seconds within which a recording has to arrive.")
    vitals_snr_db: float = Field(1.0, ge=-30, le=30, description="Signal to noise, in dB, that a pulse must exceed.")
    vitals_ac: float = Field(0.5, ge=0, le=1, description="Autocorrelation that a pulse must exceed.")
    vitals_streams: int = Field(50, ge=0, le=10_000, description="Streams of vitals that are open at once.")
    vitals_origins: str = Field(
        "", description="Origins, comma-separated, of pages elsewhere that may open streams of vitals; `*` for any."
    )
    vitals_retention_days: int = Field(30, ge=1, le=3650, description="Days for which measurements are kept.")

    # Where messages may go
    allow_private_targets: bool = Field(default=False, description="Let channels reach private and loopback addresses.")
    egress_allow: str = Field("", description="CIDRs and host names, comma-separated, that channels may reach besides.")
    ca_file: Path | None = Field(None, description="PEM file of further roots that outgoing TLS trusts.")
    pagerduty_url: str = Field("https://events.pagerduty.com", description="Base address of the PagerDuty Events API.")
    twilio_url: str = Field("https://api.twilio.com", description="Base address of the Twilio-compatible SMS API.")
    twilio_account_sid: str | None = Field(None, description="Account of the SMS gateway.")
    twilio_auth_token: SecretStr | None = Field(None, description="Its token.")
    twilio_api_key: str | None = Field(None, description="API key used for requests instead of the token.")
    twilio_api_secret: SecretStr | None = Field(None, description="Its secret.")
    twilio_from: str | None = Field(None, description="Sending number, E.164.")
    twilio_messaging_service_sid: str | None = Field(None, description="Messaging service used instead of a number.")
    slack_signing_secret: SecretStr | None = Field(
        None, description="Signing secret of the Slack app whose button acknowledges."
    )
    email_per_minute: int = Field(300, ge=1, description="E-mails per minute, over all channels and nodes.")
    webhook_per_second: int = Field(0, ge=0, description="Webhooks per second to one host; 0 is unlimited.")
    smtp_host: str | None = Field(None, description="SMTP server for e-mail channels.")
    smtp_port: int = Field(587, ge=1, le=65535, description="Its port.")
    smtp_username: str | None = Field(None, description="Its user.")
    smtp_password: SecretStr | None = Field(None, description="Its password.")
    smtp_from: str = Field(default_factory=lambda: f"lifesign@{socket.gethostname()}", description="Sender of e-mails.")
    smtp_tls: Literal["starttls", "tls", "none"] = Field("starttls", description="starttls means required.")

    # Signing in by OpenID Connect
    oidc_issuer: str | None = Field(
        None, description="Address of an OpenID provider, as it calls itself; people may sign in there."
    )
    oidc_client_id: str | None = Field(None, description="What the provider calls this server.")
    oidc_client_secret: SecretStr | None = Field(
        None, description="The secret that goes with it; unset for a public client."
    )
    oidc_name: str | None = Field(None, description="What the button says; the host of the issuer when unset.")
    oidc_domains: str = Field(
        "",
        description="Domains of e-mail addresses, comma-separated, that may sign in, new people too; `*` for any. "
        "When empty, only people who have an account may.",
    )
    oidc_role: Literal["owner", "editor", "viewer"] = Field(
        "viewer", description="Role in the default project of somebody who signs in for the first time."
    )

    # For black-box tests only
    testing: bool = Field(
        default=False, description="Allow the manual clock, its routes and failpoints; loopback only."
    )
    clock: Literal["system", "manual"] = Field("system", description="manual: time stands until POST /_test/advance.")
    clock_start: str | None = Field(
        None, description="RFC 3339 start of the manual clock; the present time when unset."
    )
    failpoints: str = Field("", description='"name=action[:nth],..." with actions kill, raise, sleep<ms>.')

    @field_validator("public_url", "pagerduty_url", "twilio_url")
    @classmethod
    def _is_base(cls, value: str | None) -> str | None:
        # Without its scheme it would stand as it is in the links of every message.
        if value is not None and not _BASE.fullmatch(value):
            raise ValueError("must be an address with http:// or https://, such as https://lifesign.example.org")
        return value.rstrip("/") if value else value

    @field_validator("admin_key")
    @classmethod
    def _admin_key_is_printable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[\x21-\x7e]{16,128}", value.get_secret_value()):
            msg = "must be 16 to 128 printable ASCII characters without spaces"
            raise ValueError(msg)
        return value

    @field_validator("secret_key")
    @classmethod
    def _secret_key_is_long(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value()) < 32:  # noqa: PLR2004 - the rule itself
            msg = "must be at least 32 characters"
            raise ValueError(msg)
        return value

    @field_validator("signup_upgrade_secret")
    @classmethod
    def _secret_is_text(cls, value: SecretStr | None) -> SecretStr | None:
        try:
            (value or SecretStr("")).get_secret_value().encode()
        except UnicodeEncodeError:
            raise ValueError("must be UTF-8 text") from None
        return value

    @field_validator("telemetry_url")
    @classmethod
    def _is_store(cls, value: SecretStr | None) -> SecretStr | None:
        scheme, _, rest = ("" if value is None else value.get_secret_value()).partition("://")
        if value is not None and (scheme not in _STORES or not rest.lstrip("/")):
            raise ValueError(f"must be {', '.join(_STORES[:-1])} or {_STORES[-1]}, followed by :// and an address")
        return value

    @field_validator("ping_smtp_listen")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        host, _, port = (value or "localhost:25").rpartition(":")
        if not host or not port.isdigit() or int(port) > MAX_PORT:
            raise ValueError("must be host:port, such as 127.0.0.1:2525")
        return value

    @model_validator(mode="after")
    def _certificate_has_its_key(self) -> "Settings":
        if (self.ping_smtp_cert is None) != (self.ping_smtp_key is None):
            raise ValueError("LIFESIGN_PING_SMTP_CERT and LIFESIGN_PING_SMTP_KEY go together")
        return self

    @model_validator(mode="after")
    def _systems_read_dead_before_they_alert(self) -> "Settings":
        if not self.system_interval_seconds <= self.system_alive_seconds <= self.system_alert_seconds:
            raise ValueError(
                "LIFESIGN_SYSTEM_INTERVAL_SECONDS must not be more than LIFESIGN_SYSTEM_ALIVE_SECONDS, "
                "nor that more than LIFESIGN_SYSTEM_ALERT_SECONDS"
            )
        return self

    @model_validator(mode="after")
    def _every_body_finds_room(self) -> "Settings":
        if self.otlp_inflight_bytes < self.otlp_max_body_bytes:
            raise ValueError(
                "LIFESIGN_OTLP_INFLIGHT_BYTES must not be less than LIFESIGN_OTLP_MAX_BODY_BYTES: "
                "the largest body would never find room"
            )
        return self

    @field_validator("otlp_json_success_status")
    @classmethod
    def _is_success(cls, value: int) -> int:
        if value not in {200, 202}:
            raise ValueError("must be 200 or 202")
        return value

    @field_validator("otlp_cors_origins", "vitals_origins")
    @classmethod
    def _origins_parse(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            if entry != "*" and not _ORIGIN.fullmatch(entry):
                msg = f"entry {entry!r} is no origin, such as https://app.example.org"
                raise ValueError(msg)
        return value

    @field_validator("oidc_issuer")
    @classmethod
    def _is_issuer(cls, value: str | None) -> str | None:
        if value is not None and not _ISSUER.fullmatch(value):
            raise ValueError("must be an https:// address without query or fragment; http:// on the loopback only")
        return value

    @field_validator("oidc_domains")
    @classmethod
    def _are_domains(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            if entry != "*" and not _HOST_NAME.fullmatch(entry):
                msg = f"entry {entry!r} is no domain, such as example.org"
                raise ValueError(msg)
        return value

    @model_validator(mode="after")
    def _issuer_knows_its_client(self) -> "Settings":
        if (self.oidc_issuer is None) != (self.oidc_client_id is None):
            raise ValueError("LIFESIGN_OIDC_ISSUER and LIFESIGN_OIDC_CLIENT_ID go together")
        return self

    @field_validator("trusted_proxies")
    @classmethod
    def _proxies_parse(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            try:
                ipaddress.ip_network(entry)
            except ValueError:
                msg = f"entry {entry!r} is not a CIDR"
                raise ValueError(msg) from None
        return value

    @field_validator("egress_allow")
    @classmethod
    def _egress_entries_parse(cls, value: str) -> str:
        for entry in filter(None, (part.strip() for part in value.split(","))):
            try:
                ipaddress.ip_network(entry)
            except ValueError:
                looks_like_address = "/" in entry or ":" in entry or re.fullmatch(r"[0-9.]+", entry)
                if looks_like_address or not _HOST_NAME.fullmatch(entry):
                    msg = f"entry {entry!r} is neither a CIDR nor a host name"
                    raise ValueError(msg) from None
        return value


def misspelt(variables: Iterable[str]) -> dict[str, str]:
    """Variables that are no setting, and the setting that each was probably meant to be."""
    prefix = "LIFESIGN_"
    known = [name.upper() for name in Settings.model_fields]
    unknown = [name for name in variables if name.startswith(prefix) and name.removeprefix(prefix) not in known]
    meant = {name: difflib.get_close_matches(name.removeprefix(prefix), known, 1, _ALIKE) for name in sorted(unknown)}
    return {name: prefix + close[0] for name, close in meant.items() if close}
