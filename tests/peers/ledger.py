"""The `ledger` peer: a web server in a process of its own that writes every request to disk before it answers.

    python -m tests.peers.ledger --port 0 --file requests.jsonl [--tls-ca-file ca.pem] [--with-parent]

It prints one line of JSON: `{"port": 4711}`, with `--tls-ca-file` also `tls_port`; the file then receives the root
that signed the certificate of that port. With `--with-parent` it ends when its standard input does.

Receivers: `/hook/<name>`, `/slack/<name>`, `/v2/enqueue` (name `pagerduty`), and
`/2010-04-01/Accounts/<sid>/Messages.json` (name `twilio`; GET lists what was accepted).
Controls: `GET /ledger?path=&at_least=&wait=` (answers once so many records are there, or after `wait` seconds),
`DELETE /ledger`, `PUT /script/<name>`.

A script is a list consumed one entry per request, after that every request is answered as the vendor would:
`{"status": 500, "headers": {...}, "body": "..."}`, `{"stall": seconds}`, `{"close": "before_read"}` (the body is not
read, nothing is recorded), `{"close": "after_read"}`, `{"close": "mid_body"}`, `{"reset": true}`, `{"bytes": n}`,
`{"drip": seconds}` (the answer byte by byte; with `"from": "body"` the head comes at once), `{"tls": "bad_cert"}` (the
next connection to the TLS port), and `{"times": n}` beside any of these to repeat it.

Written on raw sockets rather than for a web server: most of these faults lie below what an application can do.
"""

import argparse
import asyncio
import base64
import contextlib
import json
import os
import socket
import ssl
import struct
import sys
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

import h11
import trustme

from lifesign.clock import SystemClock
from tests.peers import vendors
from tests.peers.vendors import Answer

Entry = dict[str, Any]  # Any: a script entry is JSON of the test's own
_CHUNK = 64 * 1024
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


@dataclass(frozen=True, slots=True)
class Request:
    """One request, read whole."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


class HangUp(Exception):
    """The connection is to end without (the rest of) an answer."""


class Ledger:
    """The JSON-lines file: what is told to have arrived is on disk."""

    def __init__(self, path: Path) -> None:
        self._file: BinaryIO = path.open("a+b")
        self._file.seek(0)
        self.records: list[dict[str, Any]] = [json.loads(line) for line in self._file]
        self._grown = asyncio.Event()

    def append(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.records.append(record)
        self._grown.set()
        self._grown = asyncio.Event()

    def clear(self) -> None:
        self._file.truncate(0)
        os.fsync(self._file.fileno())
        self.records.clear()

    def at(self, path: str | None) -> list[dict[str, Any]]:
        return [record for record in self.records if path is None or record["path"] == path]

    async def wait_for(self, path: str | None, count: int) -> None:
        while len(self.at(path)) < count:
            await self._grown.wait()


class Scripts:
    """What is to go wrong, by name of the receiver."""

    def __init__(self) -> None:
        self._entries: dict[str, deque[Entry]] = {}

    def set(self, name: str, entries: list[Entry]) -> None:
        repeated = [entry for entry in entries for _ in range(int(entry.get("times", 1)))]
        self._entries[name] = deque(repeated)

    def next_for(self, name: str) -> Entry:
        entries = self._entries.get(name)
        # What concerns the handshake waits for one: the request may have come over the plain port.
        return entries.popleft() if entries and "tls" not in entries[0] else {}

    def take_bad_certificate(self) -> bool:
        """Whether the next handshake fails. The name of the receiver is not known before it, so any script counts."""
        for entries in self._entries.values():
            if entries and entries[0].get("tls") == "bad_cert":
                entries.popleft()
                return True
        return False


class Peer:
    """The server: connections in, verdicts out."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._scripts = Scripts()
        self._clock = SystemClock()

    async def serve_plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while await self._one_request(connection, reader, writer):
                connection.start_next_cycle()
        except (HangUp, h11.RemoteProtocolError, ConnectionError, ssl.SSLError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()

    async def serve_tls(self, certificates: "Certificates", reader: asyncio.StreamReader, writer: Any) -> None:
        # Any: StreamWriter.start_tls is there since Python 3.11, but not in every version of the type stubs.
        try:
            is_bad = self._scripts.take_bad_certificate()
            await writer.start_tls(certificates.bad if is_bad else certificates.good)
        except (OSError, ssl.SSLError):
            writer.close()
            return
        await self.serve_plain(reader, writer)

    async def _one_request(
        self, connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        head = await _next_event(connection, reader)
        if not isinstance(head, h11.Request):
            return False
        url = urlsplit(head.target.decode("ascii"))
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        name = _receiver(url.path)
        # Asking which messages were accepted is the test's own look.
        is_scripted = head.method != b"GET" or name != "twilio"
        entry = self._scripts.next_for(name) if name is not None and is_scripted else {}
        if entry.get("close") == "before_read":
            _reset_on_close(writer)
            raise HangUp
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in head.headers}
        body = await _read_body(connection, reader, writer, headers)
        request = Request(head.method.decode("ascii"), url.path, query, headers, body)
        if name is None:
            await _send(connection, writer, await self._control(request))
        else:
            await self._deliver(connection, writer, request=request, entry=entry)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    async def _deliver(
        self, connection: h11.Connection, writer: asyncio.StreamWriter, *, request: Request, entry: Entry
    ) -> None:
        verdict = self._verdict(request)
        answer = _scripted(verdict, entry)
        self._ledger.append(
            {
                "time": self._clock.now(),
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "headers": dict(request.headers),
                "body": request.body.decode("utf-8", "replace"),
                "body_base64": base64.b64encode(request.body).decode("ascii"),
                "verdict": {"status": verdict.status, "body": verdict.body},
                "answered": answer.status,
                "fault": entry or None,
            }
        )
        if "stall" in entry:
            await asyncio.sleep(float(entry["stall"]))
        if entry.get("reset"):
            _reset_on_close(writer)
            raise HangUp
        if entry.get("close") == "after_read":
            raise HangUp
        await _send(connection, writer, answer, entry)

    def _verdict(self, request: Request) -> Answer:
        kind, *rest = request.path.strip("/").split("/")
        match kind:
            case "slack":
                return vendors.slack(request.headers, request.body)
            case "v2":
                return vendors.pagerduty(request.headers, request.body)
            case "2010-04-01":
                if request.method == "GET":
                    return self._list_messages(request)
                sid = f"SM{len(self._ledger.records):032x}"
                return vendors.twilio(request.headers, request.body, account_sid=rest[1], sid=sid)
            case _:
                return Answer(200, "{}")

    def _list_messages(self, request: Request) -> Answer:
        sent = [
            json.loads(record["verdict"]["body"])
            for record in reversed(self._ledger.at(request.path))
            if record["method"] == "POST" and record["answered"] == 201
        ]
        to = request.query.get("To")
        found = [message for message in sent if to is None or message["to"] == to]
        return Answer(200, json.dumps({"messages": found[: int(request.query.get("PageSize", "50"))]}))

    async def _control(self, request: Request) -> Answer:
        kind, *rest = request.path.strip("/").split("/")
        match request.method, kind:
            case "GET", "ledger":
                path = request.query.get("path")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(float(request.query.get("wait", "0"))):
                        await self._ledger.wait_for(path, int(request.query.get("at_least", "0")))
                return Answer(200, json.dumps(self._ledger.at(path)))
            case "DELETE", "ledger":
                self._ledger.clear()
                return Answer(204, "")
            case "PUT", "script":
                self._scripts.set(rest[0], json.loads(request.body))
                return Answer(204, "")
            case _:
                return Answer(404, "{}")


class Certificates:
    """A certificate for 127.0.0.1 under a root that the test may trust, and one under a root that nobody does."""

    def __init__(self, ca_file: Path) -> None:
        root = trustme.CA()
        root.cert_pem.write_to_path(str(ca_file))
        self.good = _server_context(root)
        self.bad = _server_context(trustme.CA())


def _server_context(root: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    root.issue_cert("127.0.0.1", "localhost").configure_cert(context)
    return context


def _receiver(path: str) -> str | None:
    match path.strip("/").split("/"):
        case ["hook" | "slack", name]:
            return name
        case ["v2", "enqueue"]:
            return "pagerduty"
        case ["2010-04-01", "Accounts", _, "Messages.json"]:
            return "twilio"
        case _:
            return None


def _scripted(verdict: Answer, entry: Entry) -> Answer:
    body = "x" * int(entry["bytes"]) if "bytes" in entry else str(entry.get("body", verdict.body))
    if "status" in entry and "body" not in entry and "bytes" not in entry:
        body = ""
    return Answer(int(entry.get("status", verdict.status)), body, verdict.content_type)


async def _next_event(connection: h11.Connection, reader: asyncio.StreamReader) -> Any:  # Any: h11 mixes types
    while True:
        event = connection.next_event()
        if event is not h11.NEED_DATA:
            return event
        connection.receive_data(await reader.read(_CHUNK))


async def _read_body(
    connection: h11.Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, headers: Mapping[str, str]
) -> bytes:
    if headers.get("expect", "").lower() == "100-continue":
        await _write(writer, connection.send(h11.InformationalResponse(status_code=100, headers=[])))
    parts = bytearray()
    while True:
        event = await _next_event(connection, reader)
        if isinstance(event, h11.Data):
            parts += event.data
        elif isinstance(event, h11.EndOfMessage):
            return bytes(parts)
        else:
            raise HangUp


async def _send(
    connection: h11.Connection, writer: asyncio.StreamWriter, answer: Answer, entry: Entry | None = None
) -> None:
    fault = entry or {}
    body = answer.body.encode()
    extra = dict(fault.get("headers", {}))
    headers = [
        ("Content-Type", answer.content_type),
        *([] if answer.status == 204 else [("Content-Length", str(len(body)))]),
        *extra.items(),
    ]
    head = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
    rest = (connection.send(h11.Data(data=body)) or b"") + (connection.send(h11.EndOfMessage()) or b"")
    if fault.get("close") == "mid_body":
        await _write(writer, head + rest[: len(rest) // 2])
        raise HangUp
    if "drip" in fault:
        await _drip(writer, head, rest, fault)
        return
    await _write(writer, head)
    for start in range(0, len(rest), _CHUNK):
        await _write(writer, rest[start : start + _CHUNK])


async def _drip(writer: asyncio.StreamWriter, head: bytes, rest: bytes, fault: Entry) -> None:
    slow = head + rest
    if fault.get("from") == "body":
        await _write(writer, head)
        slow = rest
    for byte in slow:
        await _write(writer, bytes([byte]))
        await asyncio.sleep(float(fault["drip"]))


async def _write(writer: asyncio.StreamWriter, data: bytes | None) -> None:
    writer.write(data or b"")
    await writer.drain()


def _reset_on_close(writer: asyncio.StreamWriter) -> None:
    """Make the close a RST: what a crashed host or a firewall looks like."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)


async def _until_parent_ends() -> None:
    """Return when standard input ends, as it does when the test run that started this process is killed."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


async def _main(options: argparse.Namespace) -> None:
    peer = Peer(Ledger(options.file))
    plain = await asyncio.start_server(peer.serve_plain, "127.0.0.1", options.port)
    ports = {"port": plain.sockets[0].getsockname()[1]}
    if options.tls_ca_file is not None:
        certificates = Certificates(options.tls_ca_file)
        secure = await asyncio.start_server(lambda r, w: peer.serve_tls(certificates, r, w), "127.0.0.1", 0)
        ports["tls_port"] = secure.sockets[0].getsockname()[1]
    sys.stdout.write(json.dumps(ports) + "\n")
    sys.stdout.flush()
    if options.with_parent:
        await _until_parent_ends()
    else:
        await plain.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The ledger peer.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--file", type=Path, required=True)
    parser.add_argument("--tls-ca-file", type=Path)
    parser.add_argument("--with-parent", action="store_true")
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_main(parser.parse_args()))
