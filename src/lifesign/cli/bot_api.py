"""What the commands about bots have in common: the project that every call names, and how things are shown."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from lifesign.cli import options
from lifesign.cli.errors import Refused
from lifesign.cli.output import print_fields, print_json, relative
from lifesign.cli.values import Json

PATH = "/v1/bot"
MAX_PAGE = 100
MAX_SCHEDULES = 1000
_FORBIDDEN, _NOT_FOUND = 403, 404
# How the API calls what is missing; which member names it, and what it is called here.
_MISSING = {
    "Bot": ("bot_id", "bot"),
    "Heartbeat": ("heartbeat_id", "schedule"),
    "Run": ("run_id", "run"),
}

Project = Annotated[
    str | None,
    typer.Option("--project", metavar="PROJECT", help="Id or name of the project, which the key must be of."),
]
Reference = Annotated[str, typer.Argument(metavar="BOT", help="Id or number of the bot.")]


class BotsApi:
    """The Bots API, for the project of the key. Every method raises as `Api`; Refused when it is not `project`."""

    def __init__(self, url: str, key: str | None, project: str | None) -> None:
        self._api = options.api(url, key)
        own = self._api.get("/v1/whoami")
        self._project: str = own["projectId"]
        self.project_name: str = own["project"]
        if project not in {None, self._project, self.project_name}:
            told = f"the key belongs to the project {self.project_name} ({self._project}), not to {project}"
            raise Refused(told, status=_FORBIDDEN)

    def get(self, path: str, **query: Json) -> dict[str, Json]:
        with _named(query):
            return self._api.get(PATH + path, **{"project_id": self._project} | query)

    def post(self, path: str, body: dict[str, Json], **query: Json) -> dict[str, Json]:
        with _named(body):
            return self._api.call("POST", PATH + path, body={"project_id": self._project} | body, query=query)

    def put(self, path: str, body: dict[str, Json]) -> dict[str, Json]:
        with _named(body):
            return self._api.call("PUT", PATH + path, body={"project_id": self._project} | body)

    def delete(self, path: str, **query: Json) -> None:
        with _named(query):
            self._api.delete(PATH + path, **{"project_id": self._project} | query)

    def rows(self, path: str, name: str, limit: int | None, *, most: int, **query: Json) -> dict[str, Json]:
        """A list of up to `limit` rows (None: all), page after page, in the shape of one answer."""
        rows: list[Json] = []
        cursor = None
        while True:
            size = most if limit is None else min(limit - len(rows), most)
            page = self.get(path, **query, limit=size, cursor=cursor)
            rows += page[name]
            cursor = page.get("next_cursor")
            if cursor is None:
                return {name: rows}
            if limit is not None and len(rows) >= limit:
                return {name: rows, "next_cursor": cursor}


@contextmanager
def _named(sent: dict[str, Json]) -> Iterator[None]:
    """Say what is not there by what was typed: the API tells a word of its own, and nothing of its paths is typed."""
    try:
        yield
    except Refused as error:
        word = str(error).partition(" not found")[0]
        member, ours = _MISSING.get(word, ("", ""))
        if error.status != _NOT_FOUND or member not in sent:
            raise
        raise Refused(f"there is no {ours} {sent[member]!r}", status=error.status) from error


def print_bot(told: dict[str, Json], *, as_json: bool) -> None:
    """A bot, for people or as JSON."""
    if as_json:
        print_json(told)
        return
    bot = told["bot"]
    own = bot["lifesign"]
    print_fields(
        [
            ("id", bot["id"]),
            ("uuid", bot["uuid"]),
            ("name", bot["name"]),
            ("schedules run", "yes" if bot["heartbeat"] else "no"),
            ("online", "yes" if bot["status"] else "no"),
            ("model", bot["model"]),
            ("instruction", bot["instruction"]),
            ("max reply tokens", bot["max_reply_tokens"]),
            *((name.replace("_", " "), value) for name, value in fields_of(own)),
            ("created", relative(bot["created_at"])),
        ]
    )


def fields_of(told: dict[str, Json]) -> Iterator[tuple[str, object]]:
    """Members of an object as fields; what is no plain value as JSON in one line."""
    import json

    for name, value in told.items():
        yield name, json.dumps(value) if isinstance(value, dict | list) and value else value
