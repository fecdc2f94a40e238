"""The way in of whoever owns the data directory: through the running server's socket, or by opening the database."""

import http.client
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote

from lifesign.cli.environment import read_settings, storage_failure
from lifesign.cli.errors import CommandFailed, Refused, Unreachable, WrongUsage
from lifesign.cli.remote import TIMEOUT_S, Answer, Api, Call, Send, answer_of, headers_of, reason_of
from lifesign.cli.values import Json

if TYPE_CHECKING:
    # Loaded by the commands that need it, as in `environment`.
    from lifesign.settings import Settings

SOCKET_FILE = "admin.sock"
_NOT_FOUND = 404

Ask = Callable[[Api], dict[str, Json]]


class Operator:
    """Calls with the operator's rights; on one project, unless they are about none. Raises as `Api`; CommandFailed."""

    def __init__(self, data_dir: str | None, project: str | None = None) -> None:
        settings = read_settings(data_dir=data_dir)
        path = settings.data_dir / SOCKET_FILE
        self._project = project
        self._in_process = Api(_in_process(settings, project))
        # On PostgreSQL any number of processes may open the database, so that no server has to be asked.
        is_there = settings.database_url is None and path.exists()
        self._running = Api(_over_socket(str(path), project)) if is_there else None

    def call(self, method: str, path: str, body: Json = None) -> dict[str, Json]:
        """One call; the answer's JSON."""
        return self._tried(lambda api: api.call(method, path, body))

    def rows(self, path: str, name: str, limit: int | None) -> dict[str, Json]:
        """A list, as `Api.rows` gives it."""
        return self._tried(lambda api: api.rows(path, name, limit))

    def _tried(self, ask: Ask) -> dict[str, Json]:
        try:
            return self._asked(ask)
        except Refused as error:
            if error.status == _NOT_FOUND and self._project is not None:
                raise Refused(f"{error} (in project {self._project})", status=error.status) from error
            raise

    def _asked(self, ask: Ask) -> dict[str, Json]:
        if self._running is not None:
            try:
                return ask(self._running)
            except Unreachable as error:
                if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
                    raise
        return ask(self._in_process)


class _SocketConnection(http.client.HTTPConnection):
    """HTTP over the Unix socket of a data directory."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(self._path)


def _headers(project: str | None) -> dict[str, str]:
    return {} if project is None else {"X-Lifesign-Project": quote(project, safe="")}


def _over_socket(path: str, project: str | None) -> Send:
    """Calls as the operator, over the Unix socket of a data directory."""

    def send(call: Call) -> Answer:
        connection = _SocketConnection(path)
        try:
            connection.request(call.method, call.path, call.content, headers_of(call) | _headers(project))
            response = connection.getresponse()
            return answer_of(response.status, response.headers, response)
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(f"cannot reach {path}: {reason_of(error)}") from error
        finally:
            connection.close()

    return send


def _in_process(settings: "Settings", project: str | None) -> Send:
    def send(call: Call) -> Answer:
        import asyncio  # costs more than the whole way through the socket

        return asyncio.run(_served(settings, project, call))

    return send


async def _served(settings: "Settings", project: str | None, call: Call) -> Answer:
    """One call to an app of this process, which holds the database for just as long."""
    import httpx2

    from lifesign import log
    from lifesign.app import operator_app
    from lifesign.db.open import DataDirectoryInUse, NoDatabase

    # One line for each request is for the log of a server, not for this terminal.
    log.configure("text", "error")
    try:
        async with operator_app(settings) as app:
            transport = httpx2.ASGITransport(app)
            async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
                headers = {**call.headers, **_headers(project)}
                response = await client.request(call.method, call.path, content=call.content, headers=headers)
                return Answer(
                    response.status_code,
                    {name.lower(): value for name, value in response.headers.items()},
                    response.content,
                )
    except DataDirectoryInUse as error:
        raise CommandFailed(
            f"{error}, but that process does not answer on {SOCKET_FILE}; "
            "if it is a server that is just starting, try again in a moment"
        ) from error
    except NoDatabase as error:
        raise WrongUsage(
            f"{error}; name the server's directory by --data-dir or LIFESIGN_DATA_DIR, "
            "or let 'lifesign serve' or 'lifesign migrate' make one"
        ) from error
    except Exception as error:
        raise storage_failure(error) from error
