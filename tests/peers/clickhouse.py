"""A server that speaks ClickHouse's HTTP and asks chdb, the real engine, which has no server of its own.

As much of the protocol as the client needs: queries with bound parameters in a form, inserts of compressed blocks,
settings, errors with their codes. It can be away, refuse inserts, or take a request and say nothing.

`python -m tests.peers.clickhouse DIRECTORY` runs it by itself: it prints its address, and ends when it is told to.
"""

import re
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

import chdb
import lz4.frame  # type: ignore[import-untyped]  # it has no types

# Of the transport, and unknown to the engine.
_NOT_SETTINGS: Final = {
    "client_protocol_version",
    "database",
    "enable_http_compression",
    "http_headers_progress_interval_ms",
    "query",
    "query_id",
    "send_progress_in_http_headers",
    "wait_end_of_query",
}
_PARAMETER: Final = "param_"
_CODE: Final = re.compile(r"Code: (\d+)")

Mood = Literal["answers", "takes no inserts", "says nothing"]


_connect: Any = chdb.connect  # which has no types


class ClickHousePeer:
    """The server, and what is wrong with it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.mood: Mood = "answers"
        self.inserts: list[str] = []
        """The tokens of inserts that were taken."""
        self.silenced = threading.Event()
        """Somebody was told nothing."""
        self.is_over = threading.Event()
        # The engine stops with its last handle, and takes a second to start.
        self._kept: Any = _connect(path)
        self._server = self._listening(0)

    @property
    def url(self) -> str:
        return f"clickhouse://default:secret@127.0.0.1:{self._server.server_port}/default"

    def leave(self) -> None:
        """Refuse connections, and drop those that are open."""
        self.is_over.set()
        self._server.shutdown()
        self._server.server_close()

    def close(self) -> None:
        """For good."""
        self.leave()
        self._kept.close()

    def come_back(self) -> None:
        """Listen again, at the same address."""
        self._server = self._listening(self._server.server_port)

    def _listening(self, port: int) -> ThreadingHTTPServer:
        self.is_over.clear()
        server = ThreadingHTTPServer(("127.0.0.1", port), type("_BoundHandler", (_Handler,), {"peer": self}))
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    peer: ClickHousePeer
    # Each connection ends with its answer, so that who leaves has left.
    protocol_version = "HTTP/1.0"

    def do_POST(self) -> None:
        body = self._body()
        fields = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        kind = self.headers.get("Content-Type", "")
        if kind.startswith("multipart/form-data"):
            fields |= _form(body, kind.partition("boundary=")[2])
            body = fields.pop("query", "").encode()
        if self.peer.mood == "says nothing":
            self.peer.silenced.set()
            self.peer.is_over.wait()
            return
        try:
            code, answer = 0, self._asked(body, fields)
        except RuntimeError as error:
            found = _CODE.search(str(error))
            code, answer = int(found[1]) if found else 1, str(error).encode()
        self.send_response(500 if code else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.send_header("X-ClickHouse-Timezone", "UTC")
        if code:
            self.send_header("X-ClickHouse-Exception-Code", str(code))
        self.end_headers()
        self.wfile.write(answer)

    def _asked(self, body: bytes, fields: dict[str, str]) -> bytes:
        query = fields.get("query", "").encode() + body
        parameters = {
            name.removeprefix(_PARAMETER): value for name, value in fields.items() if name.startswith(_PARAMETER)
        }
        handle: Any = _connect(self.peer.path)
        try:
            for name, value in fields.items():
                if name not in _NOT_SETTINGS and not name.startswith(_PARAMETER):
                    handle.query(f"SET {name} = {_quoted(value)}")
            if query.startswith(b"INSERT INTO"):
                return self._inserted(handle, query, fields)
            return bytes(handle.query(query.decode(), "TabSeparated", params=parameters).bytes())
        finally:
            handle.close()

    # Any: chdb has no types.
    def _inserted(self, handle: Any, query: bytes, fields: dict[str, str]) -> bytes:
        if self.peer.mood == "takes no inserts":
            raise RuntimeError("Code: 242. DB::Exception: Table is in readonly mode. (TABLE_IS_READ_ONLY)")
        head, _, rows = query.partition(b"\n")
        with tempfile.NamedTemporaryFile() as file:
            file.write(rows)
            file.flush()
            statement = head.decode().removesuffix(" FORMAT Native")
            handle.query(f"{statement} FROM INFILE {_quoted(file.name)} FORMAT Native")
        self.peer.inserts.append(fields["insert_deduplication_token"])
        return b""

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            body = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
        return lz4.frame.decompress(body) if self.headers.get("Content-Encoding") == "lz4" else body

    def log_message(self, *_words: object) -> None:
        """Tests tell what they saw themselves."""


def _form(body: bytes, boundary: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    for part in body.split(f"--{boundary}".encode())[1:-1]:
        head, _, value = part.partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        assert name is not None
        fields[name[1].decode()] = value.removesuffix(b"\r\n").decode()
    return fields


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def main() -> None:
    """Serve until the process is ended."""
    print(ClickHousePeer(sys.argv[1]).url, flush=True)  # noqa: T201 - read by who started it
    threading.Event().wait()


if __name__ == "__main__":
    main()
