"""SQL of the table `status_pages`."""

from typing import Any

import orjson
from sqlalchemy import Connection, delete, select, update

from lifesign.db.schema import status_pages
from lifesign.db.sql import insert_if_new
from lifesign.web.status import StatusPage

P = status_pages.c
_COLUMNS = (P.id, P.project_id, P.slug, P.title, P.description, P.is_on, P.heartbeats, P.created_at, P.updated_at)


def insert(conn: Connection, page: StatusPage) -> bool:
    """A new page; False when another one has its slug."""
    row = {"id": page.id, "project_id": page.project_id, "created_at": page.created_at, "updated_at": None}
    return insert_if_new(conn, status_pages, row | _values(page), unique=("slug",))


def save(conn: Connection, page: StatusPage) -> None:
    """What a page is now."""
    conn.execute(update(status_pages).where(P.id == page.id).values(updated_at=page.updated_at, **_values(page)))


def _values(page: StatusPage) -> dict[str, Any]:  # Any: values of columns
    return {
        "slug": page.slug,
        "title": page.title,
        "description": page.description,
        "is_on": int(page.is_on),
        "heartbeats": orjson.dumps(page.heartbeats).decode(),
    }


def by_id(conn: Connection, project_id: str, page_id: str, *, lock: bool = False) -> StatusPage | None:
    """One page of a project."""
    query = select(*_COLUMNS).where(P.id == page_id, P.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _page(row)


def by_slug(conn: Connection, slug: str) -> StatusPage | None:
    """The page with this address, in whatever project. Index: uq_status_pages_slug."""
    row = conn.execute(select(*_COLUMNS).where(P.slug == slug)).first()
    return None if row is None else _page(row)


def pages_of(conn: Connection, project_id: str, *, limit: int) -> list[StatusPage]:
    """The pages of a project, oldest first. Index: ix_status_pages_project."""
    query = select(*_COLUMNS).where(P.project_id == project_id)
    return [_page(row) for row in conn.execute(query.order_by(P.id).limit(limit))]


def delete_page(conn: Connection, page_id: str) -> None:
    """Remove a page."""
    conn.execute(delete(status_pages).where(P.id == page_id))


def _page(row: Any) -> StatusPage:  # Any: a row of a table whose columns mypy does not know
    return StatusPage(
        row.id,
        row.project_id,
        row.slug,
        row.title,
        row.description,
        bool(row.is_on),
        tuple(orjson.loads(row.heartbeats)),
        row.created_at,
        row.updated_at,
    )
