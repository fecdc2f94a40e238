"""Options that many commands share, each declared once."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from lifesign.cli import remote
from lifesign.cli.remote import TIMEOUT_S, Api, over_kept_network, over_network, required_key

DEFAULT_URL = remote.DEFAULT_URL

Url = Annotated[str, typer.Option("--url", envvar="LIFESIGN_URL", help="Address of the server.")]
Key = Annotated[
    str | None,
    typer.Option(
        "--key",
        envvar=["LIFESIGN_KEY", "LIFESIGN_API_KEY"],
        help="API key; better in the environment, where no history keeps it.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the server's JSON instead of a table.")]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir", metavar="DIR", help="Directory of the database.  [env var: LIFESIGN_DATA_DIR; default: data]"
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many rows; all when not given.")]
NewestLimit = Annotated[int, typer.Option("--limit", min=1, help="At most so many rows, the newest.")]
Force = Annotated[bool, typer.Option("--force", help="Delete it even while it is in use, and take it out of there.")]


def api(url: str, key: str | None) -> Api:
    """The API of the server at `url`. Raises WrongUsage, with the way to a key, when there is none."""
    return Api(over_network(url, required_key(key)))


@contextmanager
def kept_api(url: str, key: str | None, *, timeout_s: float = TIMEOUT_S) -> Iterator[Api]:
    """As `api`, over one connection for all calls. timeout_s: of each read and write. Raises WrongUsage."""
    with over_kept_network(url, required_key(key), timeout_s=timeout_s) as send:
        yield Api(send)
