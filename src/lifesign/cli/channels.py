"""`lifesign channels`: where messages go."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.output import print_fields, print_json, print_rows, relative, safe, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json, given

app = typer.Typer(help="Where messages go.", no_args_is_help=True)
create = typer.Typer(help="Make a channel of one of these types.", no_args_is_help=True)
app.add_typer(create, name="create")

_PATH = "/v1/channels"

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the channel.")]
Name = Annotated[str, typer.Option("--name", help="Its name.")]


@app.command("list")
def list_channels(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List channels."""
    body = options.api(url, key).rows(_PATH, "channels", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("type", lambda row: row["type"]),
        ("name", lambda row: row["name"]),
        ("target", _target),
        ("broken", lambda row: row.get("broken", {}).get("reason")),
    ]
    print_rows(
        body["channels"],
        columns,
        empty="no channels; make one: lifesign channels create email --name NAME --to ADDRESS",
    )
    tell_more(body)


@app.command("get")
def get_channel(
    *, channel: Id, as_json: options.AsJson = False, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Show a channel; its secrets are masked."""
    _show(options.api(url, key).get(f"{_PATH}/{segment(channel)}"), as_json=as_json)


@create.command("email")
def create_email(
    *,
    name: Name,
    to: Annotated[list[str], typer.Option("--to", metavar="ADDRESS", help="Who gets the mail; repeatable.")],
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Mail to one address or more."""
    _create(name, "email", {"to": to}, url, key, as_json=as_json)


@create.command("webhook")
def create_webhook(
    *,
    name: Name,
    target: Annotated[str, typer.Option("--target", metavar="URL", help="Where to POST to.")],
    secret: Annotated[
        str | None,
        typer.Option(
            "--secret",
            envvar="LIFESIGN_WEBHOOK_SECRET",
            help="Signing secret, whsec_...; made and shown once by default.",
        ),
    ] = None,
    secret_file: Annotated[
        str | None, typer.Option("--secret-file", metavar="FILE", help="File with the secret; - is standard input.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="HEADER", help="'Name: value', sent along; repeatable.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """A signed POST to an address, as Standard Webhooks says."""
    config = given(url=target, secret=values.secret(secret, secret_file, "--secret"))
    if header:
        config["headers"] = values.headers(header, "--header")
    _create(name, "webhook", config, url, key, as_json=as_json)


@create.command("slack")
def create_slack(
    *,
    name: Name,
    webhook_url: Annotated[
        str | None,
        typer.Option(
            "--webhook-url", envvar="LIFESIGN_SLACK_WEBHOOK_URL", help="Incoming webhook of the Slack channel."
        ),
    ] = None,
    webhook_url_file: Annotated[
        str | None,
        typer.Option("--webhook-url-file", metavar="FILE", help="File with the webhook; - is standard input."),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """A message in a Slack channel."""
    webhook = values.required_secret(webhook_url, webhook_url_file, "--webhook-url", "LIFESIGN_SLACK_WEBHOOK_URL")
    _create(name, "slack", {"webhookUrl": webhook}, url, key, as_json=as_json)


@create.command("pagerduty")
def create_pagerduty(
    *,
    name: Name,
    routing_key: Annotated[
        str | None,
        typer.Option("--routing-key", envvar="LIFESIGN_PAGERDUTY_ROUTING_KEY", help="Integration key of the service."),
    ] = None,
    routing_key_file: Annotated[
        str | None, typer.Option("--routing-key-file", metavar="FILE", help="File with the key; - is standard input.")
    ] = None,
    severity: Annotated[
        str | None, typer.Option("--severity", help="critical (default), error, warning or info.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """An alert in PagerDuty."""
    routing = values.required_secret(routing_key, routing_key_file, "--routing-key", "LIFESIGN_PAGERDUTY_ROUTING_KEY")
    _create(name, "pagerduty", given(routingKey=routing, severity=severity), url, key, as_json=as_json)


@create.command("sms")
def create_sms(
    *,
    name: Name,
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="NUMBER", help="Who gets the message, such as +15550100200; repeatable."),
    ],
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """A text message to one phone or more."""
    _create(name, "sms", {"to": to}, url, key, as_json=as_json)


@app.command("update")
def update_channel(
    *,
    channel: Id,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    channel_type: Annotated[str | None, typer.Option("--type", help="A new type; needs --config.")] = None,
    config: Annotated[
        str | None,
        typer.Option(
            "--config",
            metavar="JSON",
            help="New settings, replaced whole; masked secrets stay. @FILE reads a file, - standard input.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Change a channel."""
    changes = given(name=name, type=channel_type)
    if config is not None:
        changes["config"] = values.json_object(config, "--config")
    if not changes:
        raise WrongUsage("nothing to change; give --name, --type or --config")
    _show(options.api(url, key).patch(f"{_PATH}/{segment(channel)}", changes), as_json=as_json)


@app.command("delete")
def delete_channel(
    *, channel: Id, force: options.Force = False, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Delete a channel."""
    options.api(url, key).delete(f"{_PATH}/{segment(channel)}", force="true" if force else None)
    print(f"deleted channel {channel}")


@app.command("test")
def check_channel(
    *, channel: Id, as_json: options.AsJson = False, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Send a test message, once, and say what became of it."""
    body = options.api(url, key).post(f"{_PATH}/{segment(channel)}/test")
    if as_json:
        print_json(body)
    if not body.get("ok"):
        raise CommandFailed(f"the test did not arrive: {safe(str(body.get('message', 'no reason given')))}")
    if not as_json:
        print("the test message was accepted")


def _create(name: str, channel_type: str, config: dict[str, Json], url: str, key: str | None, *, as_json: bool) -> None:
    body = {"name": name, "type": channel_type, "config": config}
    _show(options.api(url, key).post(_PATH, body), as_json=as_json)


def _target(row: dict[str, Json]) -> object:
    config = row["config"]
    return next((config[name] for name in ("to", "url", "webhookUrl", "routingKey") if name in config), None)


def _show(row: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    pairs: list[tuple[str, object]] = [(name, row[name]) for name in ("name", "id", "type")]
    pairs += [(f"config.{name}", value) for name, value in row["config"].items()]
    broken = row.get("broken")
    if broken:
        pairs.append(("broken", f"{broken.get('reason')} (since {relative(broken.get('since'))})"))
    pairs += [(name, f"{row[name]} ({relative(row[name])})") for name in ("createdAt", "updatedAt") if name in row]
    print_fields(pairs)
