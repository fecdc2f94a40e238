"""The way in of whoever owns the data directory: through the running server's socket, or by opening the database."""

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from lifesign.cli.environment import read_settings, storage_failure
from lifesign.cli.errors import CommandFailed, Unreachable
from lifesign.cli.remote import Answer, Api, Call, Send, over_socket
from lifesign.cli.values import Json

if TYPE_CHECKING:
    # Loaded by the commands that need it, as in `environment`.
    from lifesign.settings import Settings

SOCKET_FILE = "admin.sock"

Ask = Callable[[Api], dict[str, Json]]


class Operator:
    """Calls with the operator's rights on one project. Raises what `Api` does, and CommandFailed."""

    def __init__(self, data_dir: str | None, project: str) -> None:
        settings = read_settings(data_dir=data_dir)
        socket = settings.data_dir / SOCKET_FILE
        self._in_process = Api(_in_process(settings, project))
        # On PostgreSQL any number of processes may open the database, so that no server has to be asked.
        self._running = None if settings.database_url else Api(over_socket(str(socket), project))

    def call(self, method: str, path: str, body: Json = None) -> dict[str, Json]:
        """One call; the answer's JSON."""
        return self._tried(lambda api: api.call(method, path, body))

    def rows(self, path: str, name: str, limit: int | None) -> dict[str, Json]:
        """A list, as `Api.rows` gives it."""
        return self._tried(lambda api: api.rows(path, name, limit))

    def _tried(self, ask: Ask) -> dict[str, Json]:
        if self._running is not None:
            try:
                return ask(self._running)
            except Unreachable as error:
                if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
                    raise
        return ask(self._in_process)


def _in_process(settings: "Settings", project: str) -> Send:
    def send(call: Call) -> Answer:
        return asyncio.run(_served(settings, project, call))

    return send


async def _served(settings: "Settings", project: str, call: Call) -> Answer:
    """One call to an app of this process, which holds the database for just as long."""
    import httpx2

    from lifesign.app import operator_app
    from lifesign.db.open import DataDirectoryInUse

    # What the libraries have to say while they open and close is for the log of a server, not for this terminal.
    logging.disable(logging.INFO)
    try:
        async with operator_app(settings) as app:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = {**call.headers, "X-Lifesign-Project": project}
                response = await client.request(call.method, call.path, content=call.content, headers=headers)
                return Answer(response.status_code, {name.lower(): value for name, value in response.headers.items()}, response.content)
    except DataDirectoryInUse as error:
        raise CommandFailed(
            f"{error}, but that process does not answer on {SOCKET_FILE}; if it is a server that is just starting, try again in a moment"
        ) from error
    except Exception as error:
        raise storage_failure(error) from error
