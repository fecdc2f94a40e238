"""Bodies out: compact JSON, and nothing at all."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response


def json_answer(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """`body` as JSON."""
    return Response(orjson.dumps(body), status, headers, media_type="application/json")


class MadeJson(Response):
    """JSON that is already text, with 200: hot routes skip what Starlette does to build headers it does not need."""

    def __init__(self, body: bytes, *headers: tuple[bytes, bytes]) -> None:
        self.status_code = 200
        self.body = body
        self.background = None
        self.raw_headers = [(b"content-length", b"%d" % len(body)), (b"content-type", b"application/json"), *headers]


def no_content() -> Response:
    """204."""
    return Response(status_code=204)


def without_absent(body: Mapping[str, Any]) -> dict[str, Any]:
    """`body` without the members that have no value: absent, never null."""
    return {key: value for key, value in body.items() if value is not None}
