"""A browser as far as forms and cookies go: it sends what stands in the page it saw last."""

import html
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

import httpx2
from sqlalchemy import Connection

from lifesign.projects import service as projects
from lifesign.web import service
from lifesign.web.rules import Role
from tests.harness import Lifesign

PASSWORD = "granite otter lantern 52"
OWNER = "ada@example.org"
_HIDDEN = re.compile(r'<input type="hidden" name="csrf" value="([0-9a-f]+)"')


@dataclass
class Browser:
    """Cookies, and the token of the page that was seen last."""

    http: httpx2.AsyncClient
    csrf: str = ""
    seen: list[httpx2.Response] = field(default_factory=list)

    async def get(self, path: str, *, expect: int = 200, **headers: str) -> str:
        """Open a page; its HTML."""
        return self._saw(await self.http.get(path, headers=headers), expect)

    async def post(
        self, path: str, fields: dict[str, str] | None = None, /, *, expect: int = 303, **headers: str
    ) -> str:
        """Send a form as the page that was seen last would; where one is sent on, or the HTML."""
        body = {"csrf": self.csrf} | (fields or {})
        answer = await self.http.post(path, data=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
        text = self._saw(answer, expect)
        return answer.headers["location"] if expect == 303 else text

    def _saw(self, answer: httpx2.Response, expect: int) -> str:
        self.seen.append(answer)
        assert answer.status_code == expect, f"{answer.request.url}: {answer.status_code} {answer.text}"
        found = _HIDDEN.search(answer.text)
        self.csrf = found[1] if found else self.csrf
        return answer.text

    @property
    def last(self) -> httpx2.Response:
        return self.seen[-1]

    async def sign_in(self, email: str = OWNER, password: str = PASSWORD, *, expect: int = 303) -> None:
        await self.post("/signin", {"email": email, "password": password}, expect=expect)
        if expect == 303:
            await self.get("/account")


def browser(lifesign: Lifesign) -> Browser:
    """A browser that nobody is signed in with."""
    return Browser(lifesign.client(None))


async def signed_up(lifesign: Lifesign, email: str = OWNER, role: Role = "owner", project: str = "default") -> Browser:
    """A browser with which somebody is signed in who has this role."""
    project_id = await lifesign.node.db.read(_project_id, project)
    _, token = await lifesign.node.db.write(
        service.add_user, email, project_id=project_id, role=role, now=lifesign.now()
    )
    opened = browser(lifesign)
    if token is None:
        await opened.sign_in(email)
        return opened
    await opened.post(f"/setup/{token}", {"password": PASSWORD, "again": PASSWORD})
    await opened.get("/account")
    return opened


def _project_id(conn: Connection, ref: str) -> str:
    return projects.id_of(conn, ref)


def said(page: str) -> str:
    """What a page says, without its marks."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]*>", " ", body))).strip()


class _Executed(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = {name for name, _ in attrs}
        is_inline = tag == "script" and "src" not in names
        if (
            is_inline
            or tag in {"style", "iframe", "object", "base"}
            or any(
                name.startswith("on") or name == "style" or (value or "").startswith("javascript:")
                for name, value in attrs
            )
        ):
            self.found.append(self.get_starttag_text() or tag)


def executed_by(page: str) -> list[str]:
    """The tags of a page that a strict policy would have to forbid."""
    parser = _Executed()
    parser.feed(page)
    return parser.found
