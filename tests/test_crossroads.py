"""Requests are led to few of the routes, and answered as if all of them had been tried."""

import re

import pytest
from starlette.routing import Mount, Route, WebSocketRoute

from tests.harness import Lifesign

_PARAMETER = re.compile(r"\{[^}]*\}")
_ODD = ["/", "//", "/v1", "/v1/", "/v1//", "/{}", "/v1/{}", "/heartbeats/{}", "/v1/heartbeats/", "/docs/static/x", "*"]


@pytest.mark.parametrize("database_url", [None], ids=["sqlite"])
async def test_every_path_is_answered_as_if_all_routes_were_tried(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = lifesign.node.api
    routes = [*api.state.known_routes, *api.router.routes]
    templates = {each.path for each in routes if isinstance(each, Route | WebSocketRoute | Mount)}
    # A verb that no route has: what is told then, tells whether the path is known, and of which routes.
    asked = [
        (method, path)
        for template in sorted(templates)
        for method, path in (("GET", _PARAMETER.sub("x", template)), ("TRACE", f"{template}/more"))
        if path != api.openapi_url
    ]
    asked += [("GET", path) for path in _ODD]

    async def answered() -> list[tuple[object, ...]]:
        async with lifesign.client(None) as http:
            answers = [await http.request(method, path, headers={"X-Request-Id": "same"}) for method, path in asked]
        return [
            (each.status_code, each.content if each.is_error else b"", *map(each.headers.get, ("allow", "location")))
            for each in answers
        ]

    short = await answered()
    monkeypatch.setattr(api.router, "middleware_stack", api.router.app)
    long = await answered()

    differing = [case for case, one, other in zip(asked, short, long, strict=True) if one != other]
    assert not differing
    assert {each[0] for each in short} >= {200, 401, 404, 405}
