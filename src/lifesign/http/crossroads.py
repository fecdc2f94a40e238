"""Finds the routes of a path by its first two segments, so that none of the others is tried.

The framework tries one route after the other, which of the three hundred here took three quarters of a small request.
"""

import copy
from collections.abc import Iterable
from typing import Final, cast

from fastapi import APIRouter
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

_ANY: Final = "{}"
_Segments = tuple[str, str]


class Crossroads:
    """Stands in a router's place: leads each request to a router of those of its routes that can have its path.

    They are tried in the order in which they stand in the whole, so that the answers are the same.
    """

    def __init__(self, whole: APIRouter) -> None:
        self._whole = whole
        self._parts: dict[_Segments, APIRouter] = {}
        self._known: list[BaseRoute] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_plain = scope["type"] != "lifespan" and not scope.get("root_path")
        part = self._part(scope["path"]) if is_plain else self._whole
        scope["router"] = self._whole
        await part.app(scope, receive, send)

    def _part(self, path: str) -> APIRouter:
        if self._known != self._whole.routes:
            self._parts, self._known = _parts_of(self._whole), list(self._whole.routes)
        first, second = _segments_of(path)
        for segments in ((first, second), (first, _ANY)):
            part = self._parts.get(segments)
            if part is not None:
                return part
        return self._parts[_ANY, _ANY]


def _parts_of(whole: APIRouter) -> dict[_Segments, APIRouter]:
    """For each beginning of a path the routes that it, or any, may lead to."""
    begun = {_beginning_of(each) for route in whole.routes for each in _routes_in(route)}
    wanted = {(_ANY, _ANY), *begun, *((first, _ANY) for first, _ in begun)}
    return {segments: _part_of(whole, segments) for segments in wanted}


def _part_of(whole: APIRouter, segments: _Segments) -> APIRouter:
    part = APIRouter(
        redirect_slashes=whole.redirect_slashes,
        default=whole.default,
        dependency_overrides_provider=whole.dependency_overrides_provider,
    )
    for route in whole.routes:
        fitting = [each for each in _routes_in(route) if _may_begin(_beginning_of(each), segments)]
        included = _included(route)
        if included is None:
            part.routes += fitting
        elif fitting:
            some = copy.copy(included)
            some.routes = fitting
            part.include_router(some)
    return part


def _may_begin(route: _Segments, path: _Segments) -> bool:
    return all(one in {_ANY, other} for one, other in zip(route, path, strict=True))


def _routes_in(route: BaseRoute) -> Iterable[BaseRoute]:
    included = _included(route)
    return [route] if included is None else included.routes


def _included(route: BaseRoute) -> APIRouter | None:
    """The router that was included as this route: the framework keeps it whole."""
    return cast("APIRouter | None", getattr(route, "original_router", None))


def _beginning_of(route: BaseRoute) -> _Segments:
    """The first two segments of the paths of a route; what may be anything, and what follows it, is `_ANY`."""
    if isinstance(route, Mount):
        return _segments_of(f"{route.path}/{_ANY}")
    return _segments_of(route.path) if isinstance(route, Route | WebSocketRoute) else (_ANY, _ANY)


def _segments_of(path: str) -> _Segments:
    _, first, second, *_ = *path.split("/", 3), "", ""
    if "{" in first:
        return _ANY, _ANY
    return first, _ANY if "{" in second else second
