"""Jobs written in Python tell a Lifesign server when they begin, that they go on, and how they ended.

Reporting never stands in the job's way: a server that is away delays nothing and fails nothing, and is logged as a
warning. All of it happens in threads, so that it works in whatever the job is made of.
"""

import asyncio
import contextlib
import functools
import inspect
import json
import logging
import os
import secrets
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping
from http.client import HTTPException
from types import TracebackType
from typing import Any, NamedTuple, ParamSpec, Self, TypeVar, cast
from urllib.parse import quote

from lifesign.client import DEFAULT_LEASE_S
from lifesign.client.wire import opener_of

P = ParamSpec("P")
R = TypeVar("R")

# Any, throughout: JSON, and exceptions of whatever kind.
# Not a line of the server: standard logging, for whatever the job logs with.
_log = logging.getLogger("lifesign.client")

_DEFAULT_URL = "http://127.0.0.1:8080"
_TIMEOUT_S = 4.0
_TOTAL_S = 10.0
_PAUSES_S = (0.2, 0.5, 1.0)
# So that two reports may get lost before the lease ends.
_REPORTS_PER_LEASE = 3
_RETRY_S = 5.0
_MAX_MESSAGE = 1000
_MAX_ANSWER_BYTES = 1 << 20
_OK, _CLIENT_ERRORS, _SERVER_ERRORS, _TOO_MANY_REQUESTS = 300, 400, 500, 429


class LifesignError(Exception):
    """The server could not be reached, or refused. `status`: of its answer; None when there was none."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class _Answer(NamedTuple):
    status: int
    body: Mapping[str, Any]


class Client:
    """Reports for jobs.

    url, key: of the server; `LIFESIGN_URL` and `LIFESIGN_KEY` when not given. ca_file: PEM file of further roots.
    Raises ValueError for an address that is none, or without a key.
    """

    def __init__(self, url: str | None = None, key: str | None = None, *, ca_file: str | None = None) -> None:
        self._url = (url or os.environ.get("LIFESIGN_URL") or _DEFAULT_URL).rstrip("/")
        key = key or os.environ.get("LIFESIGN_KEY") or os.environ.get("LIFESIGN_API_KEY")
        if not key:
            raise ValueError("no API key: give key= or set LIFESIGN_KEY")
        self._opener = opener_of(self._url, ca_file)
        self._headers = {
            "Authorization": f"Bearer {key}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "lifesign-client",
        }

    def check_in(
        self, heartbeat: str, *, healthy: bool = True, metadata: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any]:
        """Record proof of life, once; the server's answer. Tries again for up to 10 s where that may help.

        heartbeat: id or slug. Raises LifesignError.
        """
        body: dict[str, Any] = {} if healthy else {"healthy": False}
        if metadata is not None:
            body["metadata"] = metadata
        headers = {"Idempotency-Key": secrets.token_hex(16)}
        return self.tried(f"/v1/heartbeats/{quote(heartbeat, safe='')}/checkin", body, headers)

    def run(self, heartbeat: str, *, lease: int = DEFAULT_LEASE_S, max_duration: int | None = None) -> "Run":
        """One execution of a job, as a context manager, with or without `async`.

        lease: seconds within which it is to report, which it does by itself. max_duration: seconds it may take.
        """
        return Run(self, heartbeat, lease_s=lease, max_duration_s=max_duration)

    def watch(
        self, heartbeat: str, *, lease: int = DEFAULT_LEASE_S, max_duration: int | None = None
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """A decorator: each call of the function, asynchronous or not, is a run. What it raises is passed on."""

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.iscoroutinefunction(function):

                @functools.wraps(function)
                async def awaited(*args: P.args, **kwargs: P.kwargs) -> Any:
                    async with self.run(heartbeat, lease=lease, max_duration=max_duration):
                        return await cast("Awaitable[Any]", function(*args, **kwargs))

                return cast("Callable[P, R]", awaited)

            @functools.wraps(function)
            def called(*args: P.args, **kwargs: P.kwargs) -> R:
                with self.run(heartbeat, lease=lease, max_duration=max_duration):
                    return function(*args, **kwargs)

            return called

        return decorate

    # What runs ask ------------------------------------------------------------------------------------------------
    def tried(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Post what may be repeated, again and again for up to 10 s; the answer. Raises LifesignError."""
        give_up_at = time.monotonic() + _TOTAL_S
        for pause_s in (*_PAUSES_S, None):
            try:
                return self.posted(path, body, headers)
            except LifesignError as error:
                is_worth_it = (
                    error.status is None or error.status >= _SERVER_ERRORS or error.status == _TOO_MANY_REQUESTS
                )
                if not is_worth_it or pause_s is None or time.monotonic() + pause_s >= give_up_at:
                    raise
                time.sleep(pause_s)
        raise AssertionError  # pragma: no cover - the last round returned or raised

    def posted(self, path: str, body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Mapping[str, Any]:
        """Post once; the answer. Raises LifesignError."""
        request = urllib.request.Request(  # noqa: S310 - the scheme was checked by opener_of
            self._url + path, json.dumps(body).encode(), {**self._headers, **(headers or {})}, method="POST"
        )
        try:
            with self._opener.open(request, timeout=_TIMEOUT_S) as response:
                status, content = response.status, response.read(_MAX_ANSWER_BYTES)
        except urllib.error.HTTPError as error:
            with error:
                status, content = error.code, error.read(_MAX_ANSWER_BYTES)
        except (OSError, HTTPException) as error:
            raise LifesignError(f"cannot reach {self._url}: {getattr(error, 'reason', error)}") from error
        answer = _understood(content)
        if answer is None:
            raise LifesignError(f"the answer of {self._url} is not that of a Lifesign server", status)
        if status >= _OK:
            raise LifesignError(str(answer.get("error", {}).get("message") or f"status {status}"), status)
        return answer


def _understood(content: bytes) -> Mapping[str, Any] | None:
    try:
        body = json.loads(content)
    except ValueError:
        return None
    return body if isinstance(body, dict) else None


class Run:
    """One execution of a job. `metadata`: what the server is told of it at the end, small and JSON."""

    def __init__(self, client: Client, heartbeat: str, *, lease_s: int, max_duration_s: int | None) -> None:
        self.metadata: dict[str, Any] = {}
        self._client = client
        self._heartbeat = heartbeat
        self._path = f"/v1/heartbeats/{quote(heartbeat, safe='')}/runs"
        self._run_id = secrets.token_hex(16)
        self._lease_s = lease_s
        self._max_duration_s = max_duration_s
        self._message: str | None = None
        self._is_begun = False
        self._is_over = threading.Event()
        self._has_news = threading.Event()
        self._reporting: threading.Thread | None = None

    def progress(self, message: str | None = None) -> None:
        """Report now rather than with the next sign of life. Returns at once."""
        self._message = None if message is None else message[:_MAX_MESSAGE]
        self._has_news.set()

    def __enter__(self) -> Self:
        """Begin."""
        if self._reporting is not None:
            raise RuntimeError("a run happens once; make another with client.run(...)")
        self._reporting = threading.Thread(target=self._report, name=f"lifesign {self._heartbeat}", daemon=True)
        self._reporting.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Tell how it ended; whatever was raised goes on."""
        self._end(error)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self.__enter__()

    async def __aexit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Tell how it ended, without keeping the loop."""
        ending: Coroutine[Any, Any, None] = asyncio.to_thread(self._end, error)
        await asyncio.shield(ending)

    def _end(self, error: BaseException | None) -> None:
        self._is_over.set()
        self._has_news.set()
        if self._reporting is not None:
            # To know whether the run is begun.
            self._reporting.join(_TIMEOUT_S)
        ok = error is None or (isinstance(error, SystemExit) and error.code in {None, 0})
        body: dict[str, Any] = {} if ok else {"ok": False, "message": f"{type(error).__name__}: {error}"[:_MAX_MESSAGE]}
        if self.metadata:
            body["metadata"] = self.metadata
        with self._logged("the end"):
            if not self._is_begun:
                self._client.tried(self._path, self._start())
            self._client.tried(f"{self._path}/{self._run_id}/finish", body)

    @contextlib.contextmanager
    def _logged(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - whatever is wrong with us, the job goes on
            _log.warning("%s of a run of %s was not reported: %s", what, self._heartbeat, error)

    def _start(self) -> dict[str, Any]:
        started: dict[str, Any] = {"runId": self._run_id, "lease": self._lease_s}
        return started if self._max_duration_s is None else started | {"maxDuration": self._max_duration_s}

    def _report(self) -> None:
        """Begin, and give a sign of life within each lease, until the run is over."""
        pause_s = self._lease_s / _REPORTS_PER_LEASE
        while not self._is_over.is_set():
            self._has_news.clear()
            try:
                self._sign_of_life()
            except LifesignError as error:
                if _is_final(error):
                    return  # the end will say why
            except Exception:  # noqa: BLE001 - as above
                return
            wait_s = pause_s if self._is_begun else min(pause_s, _RETRY_S)
            if not self._is_over.is_set():
                self._has_news.wait(wait_s)

    def _sign_of_life(self) -> None:
        if not self._is_begun:
            self._client.posted(self._path, self._start())
            self._is_begun = True
            if self._message is None:
                return
        body = {} if self._message is None else {"message": self._message}
        self._client.posted(f"{self._path}/{self._run_id}/progress", body)


def _is_final(error: LifesignError) -> bool:
    status = error.status
    return status is not None and _CLIENT_ERRORS <= status < _SERVER_ERRORS and status != _TOO_MANY_REQUESTS
