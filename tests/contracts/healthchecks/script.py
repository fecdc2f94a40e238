"""The script: what is asked, in order, and what Healthchecks answers, as its code and its documentation say.

A scene is a story with a beginning: it makes the checks that it asks about. What stands in braces in a path or a body
is a word of the server's own: a key (`{full}`, `{read}`, `{ping}`, `{other}`), or part of an answer that was kept
(`{job.uuid}`). What stands in angle brackets in an answer is a name that `answers.Names` gave.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from tests.contracts.healthchecks.answers import Anything, Containing, Expected, Having, NoJson

# Any, throughout: JSON.
RID = "0b6b7f3e-6a3b-4b0e-9d0f-3a1c2b4d5e6f"
OTHER_RID = "5f0c8d3b-9a7e-4f21-b6c0-d9e8f7a6b5c4"
NOBODY = "07c2f548-9850-4b27-af5d-6c9dc157ec02"
KIB, MIB = 1024, 1024 * 1024
AGENT = "script/1"
FAULT = "json validation error: "
ANYBODY = {"access-control-allow-origin": "*"}


@dataclass(frozen=True, slots=True)
class Step:
    """One request. expect: what Healthchecks answers. differs: by which number Lifesign answers `ours` instead.

    content: the body as bytes; body: as JSON. key: the name of the key in `X-Api-Key`; None for none. keep: the name of
    the answer for later steps. is_ours: asked of Lifesign alone, as the route is Lifesign's, or would need a turned
    clock; what Healthchecks would answer is written down all the same, where there is such an answer.
    """

    method: str
    path: str
    expect: Expected
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    key: str | None = None
    keep: str = ""
    differs: int = 0
    ours: Expected | None = None
    is_ours: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Time passes: Lifesign's clock is turned. Nothing after it is asked of a server with a clock of its own.

    is_blind: the server is not there meanwhile.
    """

    seconds: float
    is_blind: bool = False


@dataclass(frozen=True, slots=True)
class Scene:
    """A story."""

    about: str
    steps: tuple[Step | Wait, ...]


def scene(about: str, *steps: Step | Wait) -> Scene:
    return Scene(about, steps)


# Saying a step ------------------------------------------------------------------------------------------------------
def api(method: str, path: str, status: int = 200, told: Any = None, **more: Any) -> Step:
    """Of the management API, by the full key, version 3 where the path does not say; open to every browser."""
    url = path if path.startswith(("/", "{")) else f"/api/v3/{path}"
    expected = Expected(status, Anything() if told is None else told, ANYBODY | more.pop("shows", {}))
    return Step(method, url, expected, **{"key": "full"} | more)


def get(path: str, told: Any = None, **more: Any) -> Step:
    return api("GET", path, 200, told, **more)


def make(name: str, told: Any = None, /, **fields: Any) -> Step:
    """Make a check, kept by a name; told: what is to be seen of it."""
    return api("POST", "checks/", 201, told, body=fields, keep=name)


def refused(text: str, /, **fields: Any) -> Step:
    """A check that cannot be made."""
    return api("POST", "checks/", 400, error(text), body=fields)


def ping(path: str, status: int = 200, text: str = "OK", method: str = "GET", **more: Any) -> Step:
    """A ping URL, by what stands behind `/ping/`."""
    shows = {"access-control-allow-origin": "*", "ping-body-limit": "10000"} if status < 300 else {}
    expected = Expected(status, "" if method == "HEAD" else text, shows | more.pop("shows", {}))
    return Step(method, f"/ping/{path}", expected, **{"headers": {"User-Agent": AGENT}} | more)


def ours(step: Step, differs: int, status: int | None = None, told: Any = None, **shows: str) -> Step:
    """The same step, answered otherwise by Lifesign."""
    as_there = step.expect.status if status is None else status
    headers = {name.replace("_", "-"): value for name, value in shows.items()}
    return replace(step, differs=differs, ours=Expected(as_there, Anything() if told is None else told, headers))


def here(method: str, path: str, status: int = 200, told: Any = None, **more: Any) -> Step:
    """A request of an API that Lifesign alone has."""
    return Step(method, path, Expected(status, Anything() if told is None else told), is_ours=True, **more)


def error(text: str) -> dict[str, str]:
    return {"error": text}


def having(**members: Any) -> Having:
    return Having(members)


# Saying an answer ---------------------------------------------------------------------------------------------------
def check(who: str, /, *, version: int = 3, **told: Any) -> dict[str, Any]:
    """A check, whole, as a key that may write sees it: as a new one, but for what is told."""
    update_url = f"<host>/api/v{version}/checks/<{who}>"
    own = {
        "uuid": f"<{who}>",
        "ping_url": f"<host>/ping/<{who}>",
        "update_url": update_url,
        "pause_url": f"{update_url}/pause",
        "resume_url": f"{update_url}/resume",
        "channels": "",
    }
    return _shown() | own | _timing(told)


def seen(**told: Any) -> dict[str, Any]:
    """The same, as a key that may only read sees it."""
    return _shown() | {"unique_key": "<unique key>"} | _timing(told)


def _timing(told: dict[str, Any]) -> dict[str, Any]:
    return told if "schedule" in told else {"timeout": 86_400} | told


def _shown() -> dict[str, Any]:
    return {
        "name": "",
        "slug": "",
        "tags": "",
        "desc": "",
        "grace": 3600,
        "n_pings": 0,
        "status": "new",
        "started": False,
        "last_ping": None,
        "next_ping": None,
        "manual_resume": False,
        "methods": "",
        "subject": "",
        "subject_fail": "",
        "start_kw": "",
        "success_kw": "",
        "failure_kw": "",
        "filter_subject": False,
        "filter_body": False,
        "filter_http_body": False,
        "filter_default_fail": False,
        "badge_url": "<host>/b/2/<uuid>.svg",
    }


UP: dict[str, Any] = {"status": "up", "last_ping": "<time>", "next_ping": "<time>"}
DOWN: dict[str, Any] = {"status": "down", "last_ping": "<time>", "next_ping": None}


def pinged(who: str, n: int, kind: str = "success", *, has_body: bool = False, **told: Any) -> dict[str, Any]:
    """A ping as it is listed."""
    url = f"<host>/api/v3/checks/<{who}>/pings/{n}/body"
    return {
        "type": kind,
        "date": "<precise time>",
        "n": n,
        "scheme": "http",
        "remote_addr": "<peer>",
        "method": "GET",
        "ua": AGENT,
        "rid": None,
        "body_url": url if has_body else None,
    } | told


def listed(who: str, *pings: dict[str, Any], **more: Any) -> Step:
    """The list of pings of a check, newest first."""
    return get(f"checks/{{{who}.uuid}}/pings/", {"pings": list(pings)}, **more)


def kinds(who: str, *wanted: str) -> Step:
    """The kinds of a check's pings, newest first."""
    return get(f"checks/{{{who}.uuid}}/pings/", {"pings": [having(type=kind) for kind in wanted]})


def state(who: str, **told: Any) -> Step:
    """What is to be seen of a check."""
    return get(f"checks/{{{who}.uuid}}", having(**told))


def flips(who: str, *ups: int) -> Step:
    """When it went up (1) and down (0), newest first."""
    told = [{"timestamp": "<time>", "up": up} for up in ups]
    return get(f"checks/{{{who}.uuid}}/flips/", {"flips": told})


# The script ---------------------------------------------------------------------------------------------------------
_NOT_JSON: dict[int, Any] = {403: "", 404: NoJson(), 405: ""}
_AS_JSON = {403: "forbidden", 404: "not found", 405: "method not allowed"}


def missing(method: str, path: str, status: int, **more: Any) -> Step:
    """What is told as JSON here, and with a page or nothing there."""
    url = path if path.startswith("/") else f"/api/v3/{path}"
    step = Step(method, url, Expected(status, _NOT_JSON[status]), **{"key": "full"} | more)
    return ours(step, 7, told=error(_AS_JSON[status]))


MAKING = (
    scene(
        "A check of nothing",
        get("checks/", {"checks": []}),
        make("plain", check("plain")),
        get("checks/{plain.uuid}", check("plain")),
        get("checks/", {"checks": [check("plain")]}),
        api("DELETE", "checks/{plain.uuid}", 200, check("plain")),
        missing("DELETE", "checks/{plain.uuid}", 404),
        ping("{plain.uuid}", 404, "not found"),
    ),
    scene(
        "A check with everything",
        make(
            "whole",
            check(
                "whole",
                name="Nightly",
                slug="nightly",
                tags="prod eu",
                desc="of the database",
                timeout=3600,
                grace=120,
                manual_resume=True,
                methods="POST",
                subject="OK,DONE",
                subject_fail="ERROR",
                start_kw="BEGIN",
                success_kw="OK,DONE",
                failure_kw="ERROR",
                filter_subject=True,
                filter_body=True,
                filter_http_body=True,
                filter_default_fail=True,
            ),
            name="Nightly",
            slug="nightly",
            tags="prod eu",
            desc="of the database",
            timeout=3600,
            grace=120,
            manual_resume=True,
            methods="POST",
            start_kw="BEGIN",
            success_kw="OK,DONE",
            failure_kw="ERROR",
            filter_subject=True,
            filter_body=True,
            filter_http_body=True,
            filter_default_fail=True,
            something_else=[1, None],
        ),
        api(
            "POST",
            "checks/{whole.uuid}",
            200,
            having(name="Nightly", desc="", methods="", manual_resume=False, failure_kw="ERROR", timeout=3600),
            body={"desc": "", "methods": "", "manual_resume": False},
        ),
        api("POST", "checks/{whole.uuid}", 200, having(name="Nightly", desc="", timeout=3600), body={}),
    ),
    scene(
        "Cron and OnCalendar",
        make(
            "cron",
            check("cron", schedule="0 2 * * *", tz="Europe/Berlin"),
            schedule="0 2 * * *",
            tz="Europe/Berlin",
            timeout=60,
        ),
        api(
            "POST", "checks/{cron.uuid}", 200, having(schedule="Mon *-*-* 10:00"), body={"schedule": "Mon *-*-* 10:00"}
        ),
        api("POST", "checks/{cron.uuid}", 200, check("cron", timeout=300), body={"timeout": 300}),
        make("lines", having(schedule="12:34\n23:45", tz="UTC"), schedule="12:34\n23:45"),
        make("old", having(tz="Europe/Kyiv"), schedule="0 2 * * *", tz="Europe/Kiev"),
        ours(
            make("blanks", having(schedule="0  2 * * *"), schedule="0  2 * * *"),
            26,
            told=having(schedule="0 2 * * *"),
        ),
    ),
    scene(
        "Older versions have slugs of their names, and tell `started` as a status",
        api(
            "POST",
            "/api/v1/checks/",
            201,
            check("v1", version=1, name="My Job", slug="my-job"),
            body={"name": "My Job"},
            keep="v1",
        ),
        api(
            "POST",
            "/api/v2/checks/",
            201,
            check("v2", version=2, name="db_main.Dump (é)", slug="db_maindump-e"),
            body={"name": "db_main.Dump (é)"},
            keep="v2",
        ),
        api("POST", "/api/v1/checks/", 201, having(name="!!!", slug=""), body={"name": "!!!"}, keep="signs"),
        api(
            "POST",
            "/api/v2/checks/{v2.uuid}",
            200,
            having(name="Other Name", slug="other-name"),
            body={"name": "Other Name"},
        ),
        api("POST", "/api/v3/checks/{v2.uuid}", 200, having(name="Third", slug="other-name"), body={"name": "Third"}),
        ping("{v1.uuid}/start"),
        get("/api/v1/checks/{v1.uuid}", having(status="started", started=True)),
        get("/api/v2/checks/{v1.uuid}", having(status="new", started=True)),
        get("/api/v3/checks/{v1.uuid}", having(status="new", started=True)),
        ours(
            api(
                "POST",
                "/api/v1/checks/",
                201,
                having(slug="chosen"),
                body={"name": "Mine", "slug": "chosen"},
                keep="mine",
            ),
            23,
            told=having(slug="mine"),
        ),
        ours(
            api("POST", "/api/v1/checks/", 201, having(slug="my-job"), body={"name": "My Job"}, keep="twin"),
            3,
            told=having(slug="my-job-2"),
        ),
        ours(
            api("POST", "checks/", 201, having(slug="my-job"), body={"slug": "my-job"}),
            3,
            400,
            error(FAULT + "slug is already in use"),
        ),
        ours(ping("{ping}/my-job", 409, "ambiguous slug"), 3, 200, "OK"),
    ),
    scene(
        "The same by what is unique",
        make("one", having(name="One"), name="One", unique=["name"]),
        api(
            "POST",
            "checks/",
            200,
            having(uuid="<one>", timeout=60),
            body={"name": "One", "timeout": 60, "unique": ["name"]},
        ),
        api(
            "POST",
            "checks/",
            200,
            having(uuid="<one>", tags="a"),
            body={"name": "One", "timeout": 60, "tags": "a", "unique": ["name", "timeout"]},
        ),
        api(
            "POST",
            "checks/",
            200,
            having(uuid="<one>", slug="one"),
            body={"tags": "a", "slug": "one", "unique": ["tags"]},
        ),
        api("POST", "checks/", 200, having(uuid="<one>"), body={"slug": "one", "unique": ["slug"]}),
        api("POST", "checks/", 201, having(name="One"), body={"name": "One", "unique": ["name", "tags"]}),
        api("POST", "checks/", 201, having(name="One"), body={"name": "One", "unique": []}),
        api("POST", "checks/", 201, having(name=""), body={"unique": ["grace"]}),
    ),
    scene(
        "Words for subjects of older clients",
        make("subject", having(subject="OK", success_kw="OK", filter_subject=True), subject="OK"),
        api(
            "POST",
            "checks/{subject.uuid}",
            200,
            having(subject="OK", subject_fail="BAD", failure_kw="BAD"),
            body={"subject_fail": "BAD"},
        ),
        api(
            "POST",
            "checks/{subject.uuid}",
            200,
            having(subject="", subject_fail="BAD", filter_subject=True),
            body={"subject": ""},
        ),
        api(
            "POST",
            "checks/{subject.uuid}",
            200,
            having(subject="", success_kw="", failure_kw="", filter_subject=False),
            body={"subject_fail": ""},
        ),
        make(
            "words",
            having(failure_kw="ERR", filter_subject=False, subject_fail=""),
            failure_kw="ERR",
            filter_http_body=True,
        ),
        api(
            "POST",
            "checks/{words.uuid}",
            200,
            having(success_kw="FINE", failure_kw="ERR", subject="FINE", subject_fail="ERR", filter_subject=True),
            body={"subject": "FINE"},
        ),
        api(
            "POST",
            "checks/{words.uuid}",
            200,
            having(success_kw="GOOD", filter_subject=False),
            body={"subject": "GOOD", "filter_subject": False},
        ),
    ),
    scene(
        "Channels",
        get("channels/", {"channels": [{"id": "<channel>", "name": "ops", "kind": Anything()}]}, keep="ways"),
        make("all", having(channels="<channel>"), channels="*"),
        make("none", having(channels=""), channels=""),
        make("by_name", having(channels="<channel>"), channels="ops"),
        make("by_id", having(channels="<channel>"), channels="{ways.channels.0.id}"),
        make("twice", having(channels="<channel>"), channels="ops,ops"),
        api("POST", "checks/{all.uuid}", 200, having(channels="<channel>"), body={"name": "kept"}),
        api("POST", "checks/{all.uuid}", 200, having(channels=""), body={"channels": ""}),
        refused("empty channel identifier", channels="ops,,ops"),
        refused("invalid channel identifier: nobody", channels="ops,nobody"),
        refused(FAULT + "channels is not a string", channels=None),
        ours(
            refused("invalid channel identifier:  ops", channels="ops, ops"),
            25,
            201,
            having(channels="<channel>"),
        ),
    ),
    scene(
        "Tags",
        make("tagged", having(tags="a b"), tags="a b"),
        ours(make("folded", having(tags="b  a b"), tags="b  a b"), 12, told=having(tags="b a")),
        ours(
            Step("POST", "/api/v3/checks/", Expected((201, 500)), body={"tags": "x" * 501}, key="full"),
            5,
            400,
            error(FAULT + "tags is too long"),
        ),
    ),
)

FAULTS = (
    scene(
        "What a check cannot be",
        *(
            refused(FAULT + text, **fields)
            for text, fields in (
                ("name is not a string", {"name": 1}),
                ("name is not a string", {"name": None}),
                ("name is too long", {"name": "x" * 101}),
                ("slug does not match pattern", {"slug": "No Slug"}),
                ("slug is too long", {"slug": "x" * 101}),
                ("tags is not a string", {"tags": ["a"]}),
                ("desc is not a string", {"desc": 1}),
                ("timeout is too small", {"timeout": 59}),
                ("timeout is too large", {"timeout": 31_536_001}),
                ("timeout is not a number", {"timeout": "60"}),
                ("timeout is not a number", {"timeout": None}),
                ("timeout is not a number", {"timeout": 60.5}),
                ("grace is too small", {"grace": 0}),
                ("grace is too large", {"grace": 31_536_001}),
                ("schedule is not a string", {"schedule": 5}),
                ("schedule is too long", {"schedule": "1," * 60 + "1 * * * *"}),
                ("schedule is not a valid cron or OnCalendar expression", {"schedule": "a b c d e"}),
                ("schedule is not a valid cron or OnCalendar expression", {"schedule": "1,2 61 * * *"}),
                ("schedule is not a valid cron or OnCalendar expression", {"schedule": "0 0 31 2 *"}),
                ("schedule is not a valid cron or OnCalendar expression", {"schedule": "12:34\nsurprise"}),
                ("schedule is not a valid cron or OnCalendar expression", {"schedule": "12:34 Europe/surprise"}),
                ("tz is not a valid timezone", {"tz": "Mars/Base"}),
                ("tz is not a string", {"tz": 1}),
                ("manual_resume is not a boolean", {"manual_resume": "yes"}),
                ("manual_resume is not a boolean", {"manual_resume": 1}),
                ("methods has unexpected value", {"methods": "GET"}),
                ("subject is not a string", {"subject": False}),
                ("subject_fail is too long", {"subject_fail": "x" * 201}),
                ("start_kw is too long", {"start_kw": "x" * 201}),
                ("success_kw is too long", {"success_kw": "x" * 201}),
                ("failure_kw is not a string", {"failure_kw": 1}),
                ("filter_subject is not a boolean", {"filter_subject": "on"}),
                ("filter_body is not a boolean", {"filter_body": None}),
                ("filter_http_body is not a boolean", {"filter_http_body": 0}),
                ("filter_default_fail is not a boolean", {"filter_default_fail": "no"}),
                ("unique is not an array", {"unique": "name"}),
                ("unique is not an array", {"unique": None}),
                ("an item in 'unique' has unexpected value", {"unique": ["status"]}),
            )
        ),
        ours(refused(FAULT + "timeout is too small", timeout=True), 21, told=error(FAULT + "timeout is not a number")),
        ours(
            refused(FAULT + "grace is too small", name=1, grace=1),
            22,
            told=error(FAULT + "name is not a string"),
        ),
        get("checks/", {"checks": []}),
        make("kept", name="Kept"),
        api("POST", "checks/{kept.uuid}", 400, error(FAULT + "timeout is too small"), body={"name": "x", "timeout": 1}),
        api(
            "POST",
            "checks/{kept.uuid}",
            400,
            error("invalid channel identifier: x"),
            body={"name": "x", "channels": "x"},
        ),
        state("kept", name="Kept"),
    ),
    scene(
        "What a body cannot be",
        *(
            api("POST", "checks/", 400, error("could not parse request body"), content=content)
            for content in (b"{", b"this is not json", b"\xff\xfe", b"   ")
        ),
        api("POST", "checks/", 400, error(FAULT + "value is not an object"), content=b"[1, 2, 3]"),
        api("POST", "checks/", 400, error("could not parse request body"), content=b"{", key=None),
    ),
    scene(
        "Keys",
        api("POST", "checks/", 401, error("missing api key"), key=None),
        api("GET", "checks/", 401, error("missing api key"), key=None),
        api("GET", "checks/", 401, error("missing api key"), key=None, headers={"X-Api-Key": "short"}),
        api("GET", "checks/", 401, error("wrong api key"), key=None, headers={"X-Api-Key": "x" * 32}),
        api("POST", "checks/", 401, error("wrong api key"), key=None, body={"api_key": "y" * 32}),
        api("POST", "checks/", 201, having(name="by body"), key=None, body={"api_key": "{full}", "name": "by body"}),
        api("POST", "checks/", 401, error("wrong api key"), key="read", body={"name": "no"}),
        api("GET", "channels/", 401, error("wrong api key"), key="read"),
        api("GET", "channels/", 401, error("wrong api key"), key="ping"),
        ours(
            api("GET", "checks/", 401, error("missing api key"), key=None, headers={"X-Api-Key": "x" * 20}),
            10,
            told=error("wrong api key"),
        ),
    ),
    scene(
        "What is not there, not allowed, and not one's own",
        make("own", name="own"),
        api("POST", "checks/", 201, having(name="theirs"), body={"name": "theirs"}, key="other", keep="theirs"),
        missing("GET", f"checks/{NOBODY}", 404),
        missing("GET", "checks/not-a-uuid", 404),
        missing("GET", "checks/" + "0" * 40, 404),
        missing("GET", f"checks/{NOBODY}/pings/", 404),
        missing("GET", f"checks/{NOBODY}/flips/", 404),
        missing("GET", "checks/{own.uuid}/pings/1/body", 404),
        missing("POST", f"checks/{NOBODY}/pause", 404),
        missing("GET", "nothing/", 404),
        missing("GET", "checks/{theirs.uuid}", 403),
        missing("POST", "checks/{theirs.uuid}", 403, body={"name": "mine now"}),
        missing("DELETE", "checks/{theirs.uuid}", 403),
        missing("POST", "checks/{theirs.uuid}/pause", 403),
        missing("POST", "checks/{theirs.uuid}/resume", 403),
        missing("GET", "checks/{theirs.uuid}/pings/", 403),
        missing("GET", "checks/{theirs.uuid}/flips/", 403),
        missing("GET", "metrics/", 403, key=None),
        missing("PUT", "checks/", 405, body={}),
        missing("PATCH", "checks/{own.uuid}", 405, body={}),
        missing("DELETE", "checks/", 405),
        missing("GET", "checks/{own.uuid}/pause", 405),
        missing("POST", "checks/{own.uuid}/flips/", 405),
        missing("POST", "badges/", 405),
        missing("PUT", "checks/", 405, body={}, key=None),
        get("checks/{theirs.uuid}", having(name="theirs"), key="other"),
        api("DELETE", "checks/{theirs.uuid}", 200, key="other"),
    ),
    scene(
        "What browsers ask first",
        *(
            api(
                "OPTIONS",
                path,
                204,
                "",
                key=None,
                shows={
                    "access-control-allow-methods": methods,
                    "access-control-allow-headers": "X-Api-Key",
                    "access-control-max-age": "600",
                },
            )
            for path, methods in (
                ("checks/", "GET, OPTIONS, POST"),
                (f"checks/{NOBODY}", "DELETE, GET, OPTIONS, POST"),
                (f"checks/{NOBODY}/pause", "OPTIONS, POST"),
                (f"checks/{NOBODY}/resume", "OPTIONS, POST"),
                (f"checks/{NOBODY}/pings/", "GET, OPTIONS"),
                (f"checks/{NOBODY}/flips/", "GET, OPTIONS"),
                ("channels/", "GET, OPTIONS"),
                ("badges/", "GET, OPTIONS"),
            )
        ),
    ),
)

PINGS = (
    scene(
        "Every signal, by UUID",
        make("job", name="job"),
        ping("{job.uuid}"),
        get("checks/{job.uuid}", check("job", name="job", n_pings=1, **UP)),
        ping("{job.uuid}/"),
        ping("{job.uuid}/fail"),
        get("checks/{job.uuid}", check("job", name="job", n_pings=3, **DOWN)),
        ping("{job.uuid}/0"),
        state("job", n_pings=4, **UP),
        ping("{job.uuid}/123"),
        state("job", n_pings=5, **DOWN),
        ping("{job.uuid}/log", method="POST", content=b"a line"),
        state("job", n_pings=6, **DOWN),
        ping("{job.uuid}/start"),
        get("checks/{job.uuid}", check("job", name="job", n_pings=7, started=True, **DOWN)),
        ping("{job.uuid}"),
        get("checks/{job.uuid}", check("job", name="job", n_pings=8, last_duration="<seconds>", **UP)),
        ours(
            listed(
                "job",
                pinged("job", 8, duration="<seconds>"),
                pinged("job", 7, "start"),
                pinged("job", 6, "log", method="POST", has_body=True),
                pinged("job", 5, "fail"),
                pinged("job", 4),
                pinged("job", 3, "fail"),
                pinged("job", 2),
                pinged("job", 1),
            ),
            18,
            told={
                "pings": [
                    pinged("job", 8, duration="<seconds>"),
                    pinged("job", 7, "start"),
                    pinged("job", 6, "log", method="POST", has_body=True),
                    pinged("job", 5, "fail", exitstatus=123),
                    pinged("job", 4, exitstatus=0),
                    pinged("job", 3, "fail"),
                    pinged("job", 2),
                    pinged("job", 1),
                ]
            },
        ),
        get("checks/{job.uuid}/pings/6/body", "a line", shows={"content-type": "text/plain"}),
        flips("job", 1, 0, 1, 0, 1),
        ping("{job.uuid}"),
        get("checks/{job.uuid}", check("job", name="job", n_pings=9, **UP)),
        get("checks/{job.uuid}/flips/?seconds=31536000", having(flips=[Anything()] * 5)),
        get("checks/{job.uuid}/flips/?seconds=0", having(flips=[Anything()] * 5)),
        get("checks/{job.uuid}/flips/?seconds=", having(flips=[Anything()] * 5)),
        get("checks/{job.uuid}/flips/?end=1000000000", {"flips": []}),
        get("checks/{job.uuid}/flips/?start=9999999999", {"flips": []}),
        *(
            ours(
                Step("GET", f"/api/v3/checks/{{job.uuid}}/flips/?{name}={value}", Expected(400, ""), key="full"),
                7,
                told=error(f"invalid {name}"),
            )
            for name, value in (("start", "abc"), ("start", "-1"), ("end", "12345678901"), ("seconds", "-1"))
        ),
    ),
    scene(
        "The first signal of a new check",
        make("failing"),
        ping("{failing.uuid}/fail"),
        get("checks/{failing.uuid}", check("failing", n_pings=1, **DOWN)),
        flips("failing", 0),
        make("starting"),
        ping("{starting.uuid}/start"),
        ours(
            get("checks/{starting.uuid}", check("starting", n_pings=1, started=True, next_ping="<time>")),
            19,
            told=check("starting", n_pings=1, started=True),
        ),
        flips("starting"),
        make("logging"),
        ping("{logging.uuid}/log"),
        get("checks/{logging.uuid}", check("logging", n_pings=1)),
    ),
    scene(
        "Every verb",
        make("verbs"),
        *(
            ping(
                "{verbs.uuid}",
                method=method,
                shows={"cache-control": "max-age=0, no-cache, no-store, must-revalidate, private"},
            )
            for method in ("HEAD", "GET", "POST", "PUT", "PATCH", "DELETE")
        ),
        get(
            "checks/{verbs.uuid}/pings/",
            {
                "pings": [
                    having(method=each, n=n)
                    for n, each in zip(range(6, 0, -1), ("DELETE", "PATCH", "PUT", "POST", "GET", "HEAD"), strict=True)
                ]
            },
        ),
        ours(ping("{verbs.uuid}", method="OPTIONS"), 8, 204, ""),
        ours(state("verbs", n_pings=7), 8, told=having(n_pings=6)),
    ),
    scene(
        "Key and slug",
        make("slugged", slug="slugged-job"),
        ping("{ping}/slugged-job"),
        ping("{ping}/slugged-job/start"),
        ping("{ping}/slugged-job/fail"),
        ping("{ping}/slugged-job/log"),
        ping("{ping}/slugged-job/0"),
        ping("{ping}/slugged-job/1", method="POST", content=b"out"),
        kinds("slugged", "fail", "success", "log", "fail", "start", "success"),
        ping("{ping}/nobody", 404, "not found"),
        ping("nosuchkeynosuchkeynosu/slugged-job", 404, "not found"),
        ping("{ping}/slugged-job/256", 400, "invalid url format"),
        ping("{ping}/slugged-job?rid=abc", 400, "invalid uuid format"),
        ping("{ping}/Slugged-Job", 400, "invalid url format"),
        ours(
            Step("GET", "/ping/{ping}/slugged.job", Expected(404, Anything()), headers={"User-Agent": AGENT}),
            24,
            400,
            "invalid url format",
        ),
        ours(ping("{ping_in_capitals}/slugged-job", 404, "not found"), 10, 200, "OK"),
    ),
    scene(
        "What is no ping URL",
        make("target"),
        *(
            ping(path, status, text)
            for path, status, text in (
                (NOBODY, 404, "not found"),
                (f"{NOBODY}/start", 404, "not found"),
                (f"{NOBODY}/256", 404, "not found"),
                (f"{NOBODY}?rid=abc", 404, "not found"),
                ("{target.uuid}/256", 400, "invalid url format"),
                ("{target.uuid}?rid=abc", 400, "invalid uuid format"),
                ("{target.uuid}?rid=", 400, "invalid uuid format"),
                (f"{{target.uuid}}/start?rid={RID}0", 400, "invalid uuid format"),
            )
        ),
        *(
            Step("GET", f"/ping/{path}", Expected(404, Anything()), headers={"User-Agent": AGENT})
            for path in (
                "07C2F548-9850-4B27-AF5D-6C9DC157EC02",
                "07c2f54898504b27af5d6c9dc157ec02/",
                "{target.uuid}/finish",
                "{target.uuid}/-1",
            )
        ),
        state("target", n_pings=0),
    ),
    scene(
        "Run ids",
        make("runs"),
        ping(f"{{runs.uuid}}/start?rid={RID}"),
        ping(f"{{runs.uuid}}?rid={OTHER_RID}"),
        state("runs", started=True, status="up"),
        ping(f"{{runs.uuid}}/log?rid={RID}"),
        ping(f"{{runs.uuid}}?rid={RID}"),
        get("checks/{runs.uuid}", check("runs", n_pings=4, last_duration="<seconds>", **UP)),
        listed(
            "runs",
            pinged("runs", 4, rid="<rid>", duration="<seconds>"),
            pinged("runs", 3, "log", rid="<rid>"),
            pinged("runs", 2, rid="<other rid>"),
            pinged("runs", 1, "start", rid="<rid>"),
        ),
        make("failed_run"),
        ping(f"{{failed_run.uuid}}/start?rid={RID}"),
        ping(f"{{failed_run.uuid}}/fail?rid={OTHER_RID}"),
        get("checks/{failed_run.uuid}", check("failed_run", n_pings=2, **DOWN)),
        make("once"),
        ping(f"{{once.uuid}}/start?rid={RID}"),
        ping(f"{{once.uuid}}/fail?rid={RID}"),
        ping(f"{{once.uuid}}?rid={RID}"),
        get("checks/{once.uuid}", check("once", n_pings=3, **UP)),
        listed(
            "once",
            pinged("once", 3, rid="<rid>"),
            pinged("once", 2, "fail", rid="<rid>", duration="<seconds>"),
            pinged("once", 1, "start", rid="<rid>"),
        ),
        make("without"),
        ping(f"{{without.uuid}}/start?rid={RID}"),
        ping("{without.uuid}"),
        ours(
            get("checks/{without.uuid}", check("without", n_pings=2, **UP)),
            20,
            told=check("without", n_pings=2, last_duration="<seconds>", **UP),
        ),
        make("shouted"),
        ping(f"{{shouted.uuid}}?rid={RID.upper()}"),
        listed("shouted", pinged("shouted", 1, rid="<rid>")),
        make("twice_sent"),
        ping(f"{{twice_sent.uuid}}?rid={RID}"),
        ours(ping(f"{{twice_sent.uuid}}?rid={RID}", shows={"ping-duplicate": ""}), 6, told="OK", ping_duplicate="1"),
        ours(state("twice_sent", n_pings=2), 6, told=having(n_pings=1)),
    ),
    scene(
        "Who sent it",
        make("sent"),
        *(
            ping("{sent.uuid}", headers={"User-Agent": "x" * 300, "X-Forwarded-For": address})
            for address in ("1.1.1.1", "2001::1", "1.1.1.1, 2.2.2.2", "1.1.1.1:1234")
        ),
        ping("{sent.uuid}", headers={"X-Forwarded-Proto": "https", "User-Agent": AGENT}),
        get(
            "checks/{sent.uuid}/pings/",
            {
                "pings": [
                    having(remote_addr="<peer>", scheme="https", ua=AGENT),
                    *(
                        having(remote_addr=address, scheme="http", ua="x" * 200)
                        for address in ("1.1.1.1", "1.1.1.1", "2001::1", "1.1.1.1")
                    ),
                ]
            },
        ),
        ours(
            Step("GET", "/ping/{sent.uuid}", Expected(500), headers={"X-Forwarded-For": "garbage"}),
            2,
            200,
            "OK",
        ),
    ),
    scene(
        "Bodies",
        make("bodies"),
        ping("{bodies.uuid}", method="POST", content=b"x" * 20_000),
        get("checks/{bodies.uuid}/pings/1/body", "x" * 10_000),
        ping("{bodies.uuid}", method="POST", content=b"Hello \xe9 World"),
        get("checks/{bodies.uuid}/pings/2/body", "Hello \\xe9 World"),
        ping("{bodies.uuid}", method="POST", content=b""),
        get("checks/{bodies.uuid}/pings/", {"pings": [having(body_url=None), having(n=2), having(n=1)]}),
        missing("GET", "checks/{bodies.uuid}/pings/3/body", 404),
        missing("GET", "checks/{bodies.uuid}/pings/4/body", 404),
        ours(
            Step("POST", "/ping/{bodies.uuid}", Expected((400, 413)), content=b"x" * (3 * MIB)),
            9,
            200,
            "OK",
        ),
    ),
    scene(
        "Keywords in bodies",
        make("words", filter_http_body=True, failure_kw="ERR, FAIL", success_kw="done,fine", start_kw="begun"),
        *(
            ping("{words.uuid}", method="POST", content=content)
            for content in (b"done ERR", b"it FAILed", b"all done", b"fine", b"begun", b"nothing", b"DONE", b"")
        ),
        kinds("words", "ign", "ign", "ign", "start", "success", "success", "fail", "fail"),
        api("POST", "checks/{words.uuid}", 200, having(filter_default_fail=True), body={"filter_default_fail": True}),
        ping("{words.uuid}", method="POST", content=b"nothing"),
        state("words", status="down"),
        ours(
            Step("POST", "/ping/{words.uuid}", Expected(500), content=b"\xff\xfe done"),
            1,
            200,
            "OK",
        ),
        make("paths", filter_http_body=True, failure_kw="ERR"),
        ping("{paths.uuid}/0", method="POST", content=b"ERR"),
        ours(kinds("paths", "fail"), 28, told={"pings": [having(type="success")]}),
    ),
    scene(
        "POST only",
        make("posted", methods="POST"),
        ping("{posted.uuid}"),
        get("checks/{posted.uuid}", check("posted", methods="POST", n_pings=1)),
        ping("{posted.uuid}/fail"),
        ping("{posted.uuid}", method="POST"),
        kinds("posted", "success", "ign", "ign"),
        flips("posted", 1),
    ),
    scene(
        "Pausing and resuming",
        make("held"),
        ping("{held.uuid}"),
        ping("{held.uuid}/start"),
        api(
            "POST",
            "checks/{held.uuid}/pause",
            200,
            having(status="paused", started=False, next_ping=None, last_ping="<time>"),
            body={},
        ),
        api("POST", "checks/{held.uuid}/pause", 200, having(status="paused")),
        ping("{held.uuid}/log"),
        ping("{held.uuid}/start"),
        state("held", status="paused", started=True),
        api(
            "POST",
            "checks/{held.uuid}/resume",
            200,
            having(status="new", last_ping=None, next_ping=None, started=False, n_pings=4),
        ),
        ours(
            Step("POST", "/api/v3/checks/{held.uuid}/resume", Expected(409, "check is not paused"), key="full"),
            7,
            told=error("check is not paused"),
        ),
        flips("held", 0, 0, 1),
        make("pinged", having(status="new")),
        ping("{pinged.uuid}"),
        api("POST", "checks/{pinged.uuid}/pause", 200, having(status="paused")),
        ping("{pinged.uuid}"),
        state("pinged", n_pings=2, **UP),
        flips("pinged", 1, 0, 1),
        make("broken"),
        ping("{broken.uuid}"),
        api("POST", "checks/{broken.uuid}/pause", 200, having(status="paused")),
        ping("{broken.uuid}/fail"),
        state("broken", n_pings=2, **DOWN),
        flips("broken", 0, 0, 1),
        make("sticky", manual_resume=True),
        ping("{sticky.uuid}"),
        api("POST", "checks/{sticky.uuid}/pause", 200, having(status="paused")),
        ping("{sticky.uuid}"),
        ping("{sticky.uuid}/fail"),
        ping("{sticky.uuid}/start"),
        state("sticky", status="paused", started=False, n_pings=4),
        kinds("sticky", "ign", "ign", "ign", "success"),
        flips("sticky", 0, 1),
    ),
    scene(
        "Creating by ping",
        ping("{ping}/made?create=1", 201, "Created"),
        ping("{ping}/made?create=1"),
        get(
            "checks/?slug=made",
            {
                "checks": [
                    having(
                        name="made",
                        slug="made",
                        tags="",
                        timeout=86_400,
                        grace=3600,
                        channels="<channel>",
                        n_pings=2,
                        manual_resume=False,
                    )
                ]
            },
        ),
        ping("{ping}/begun/start?create=1", 201, "Created"),
        get("checks/?slug=begun", {"checks": [having(status="new", started=True, n_pings=1)]}),
        ping("{ping}/unmade", 404, "not found"),
        ping("{ping}/unmade?create=0", 404, "not found"),
        ping("nosuchkeynosuchkeynosu/unmade?create=1", 404, "not found"),
        get("checks/?slug=unmade", {"checks": []}),
        get("checks/?slug=", having(checks=[Anything()] * 2)),
        ping("{ping}/bad/300?create=1", 400, "invalid url format"),
        ours(get("checks/?slug=bad", {"checks": [having(slug="bad", n_pings=0)]}), 4, told={"checks": []}),
        ping("{ping}/timed?create=1&period=2h&grace=5m&tags=a+b", 201, "Created"),
        ours(
            get("checks/?slug=timed", {"checks": [having(timeout=86_400, grace=3600, tags="")]}),
            4,
            told={"checks": [having(timeout=7200, grace=300, tags="a b")]},
        ),
    ),
)

_ODD_NAME = 'A "b"\\\n'
READING = (
    scene(
        "Lists",
        make("a", name="a", tags="x y", slug="a"),
        make("b", name="b", tags="y", slug="b"),
        make("c", name="c", tags="xx", slug="c"),
        get("checks/", {"checks": [having(name="a"), having(name="b"), having(name="c")]}),
        get("checks/?tag=y", {"checks": [having(name="a"), having(name="b")]}),
        get("checks/?tag=y&tag=x", {"checks": [having(name="a")]}),
        get("checks/?tag=x", {"checks": [having(name="a")]}),
        get("checks/?tag=z", {"checks": []}),
        get("checks/?tag=", {"checks": []}),
        get("checks/?slug=b", {"checks": [having(name="b")]}),
        get("checks/?slug=b&tag=x", {"checks": []}),
        get("/api/v1/checks/", {"checks": [having(update_url="<host>/api/v1/checks/<a>"), Anything(), Anything()]}),
        ours(
            Step("GET", "/api/v3/checks", Expected((301, 404)), key="full"),
            29,
            200,
            having(checks=[Anything()] * 3),
        ),
        ours(
            get("checks/?limit=1", {"checks": [having(name="a"), having(name="b"), having(name="c")]}),
            18,
            told={"checks": [having(name="a")], "next_cursor": Anything()},
        ),
    ),
    scene(
        "Who may only read",
        make("shown", name="shown", channels="*", tags="t"),
        ping("{shown.uuid}/start"),
        ping("{shown.uuid}"),
        get(
            "checks/",
            {"checks": [seen(name="shown", tags="t", n_pings=2, last_duration="<seconds>", **UP)]},
            key="read",
            keep="list",
        ),
        get(
            "checks/{shown.uuid}", seen(name="shown", tags="t", n_pings=2, last_duration="<seconds>", **UP), key="read"
        ),
        get(
            "checks/{list.checks.0.unique_key}",
            seen(name="shown", tags="t", n_pings=2, last_duration="<seconds>", **UP),
            key="read",
        ),
        get("checks/{list.checks.0.unique_key}", having(uuid="<shown>")),
        get("checks/{list.checks.0.unique_key}/flips/", {"flips": [{"timestamp": "<time>", "up": 1}]}, key="read"),
        get("checks/{shown.uuid}/flips/", {"flips": [{"timestamp": "<time>", "up": 1}]}, key="read"),
        get("badges/", having(badges=having(t=Anything())), key="read"),
        *(
            api(method, path, 401, error("wrong api key"), key="read")
            for method, path in (
                ("POST", "checks/{shown.uuid}"),
                ("DELETE", "checks/{shown.uuid}"),
                ("POST", "checks/{shown.uuid}/pause"),
                ("POST", "checks/{shown.uuid}/resume"),
                ("GET", "checks/{shown.uuid}/pings/"),
                ("GET", "checks/{shown.uuid}/pings/1/body"),
            )
        ),
    ),
    scene(
        "Badges",
        make("good", name="<good>", tags="prod a.b"),
        make("late", name="late", tags="prod"),
        get(
            "badges/",
            {
                "badges": {
                    tag: {
                        name: f"<host>/badge/<signed>{'' if name.endswith('3') else '-2'}{end}.{name.removesuffix('3')}"
                        for name in ("svg", "svg3", "json", "json3", "shields", "shields3")
                    }
                    for tag, end in (("*", ""), ("prod", "/prod"), ("a.b", "/a.b"))
                }
            },
            keep="badges",
        ),
        *(
            get(f"{{badges.badges.{tag}.{name}}}", told, key=None)
            for tag, name, told in (
                ("*", "json", {"status": "up", "total": 2, "grace": 0, "down": 0}),
                ("*", "json3", {"status": "up", "total": 2, "grace": 0, "down": 0}),
                ("prod", "shields", {"schemaVersion": 1, "label": "prod", "message": "up", "color": "success"}),
                ("prod", "svg", Containing(("<svg", "prod", "up"))),
            )
        ),
        ping("{late.uuid}/fail"),
        *(
            get(f"{{badges.badges.{tag}.{name}}}", told, key=None)
            for tag, name, told in (
                ("*", "json", {"status": "down", "total": 2, "grace": 0, "down": 1}),
                ("prod", "json3", {"status": "down", "total": 2, "grace": 0, "down": 1}),
                ("prod", "shields3", {"schemaVersion": 1, "label": "prod", "message": "down", "color": "critical"}),
                ("*", "svg", Containing(("<svg", "down"))),
            )
        ),
        get("{good.badge_url}", Containing(("<svg", "&lt;good&gt;", "up")), key=None, shows={"kind": "image/svg+xml"}),
        get("{late.badge_url}", Containing(("<svg", "late", "down")), key=None),
        api("OPTIONS", "{late.badge_url}", 204, "", key=None, shows={"access-control-allow-methods": "GET, OPTIONS"}),
        api(
            "OPTIONS",
            "{badges.badges.prod.svg}",
            204,
            "",
            key=None,
            shows={"access-control-allow-methods": "GET, OPTIONS"},
        ),
        Step("GET", f"/b/2/{NOBODY}.svg", Expected(404)),
        Step("GET", f"/badge/{NOBODY}/AAAAAAAA/prod.svg", Expected(404)),
    ),
    scene(
        "Prometheus",
        make("watched", name=_ODD_NAME, tags="prod x"),
        ping("{watched.uuid}/start"),
        make("lost", name="lost", tags="prod"),
        ping("{lost.uuid}/fail"),
        *(
            Step(
                "GET",
                path,
                Expected(
                    200,
                    Having(
                        {
                            "hc_check_up name='lost' tags='prod' unique_key='<unique key>'": 0.0,
                            f"hc_check_up name={_ODD_NAME!r} tags='prod x' unique_key='<unique key>'": 1.0,
                            "hc_check_started name='lost' tags='prod' unique_key='<unique key>'": 0.0,
                            f"hc_check_started name={_ODD_NAME!r} tags='prod x' unique_key='<unique key>'": 1.0,
                            "hc_tag_up tag='prod'": 0.0,
                            "hc_tag_up tag='x'": 1.0,
                            "hc_checks_total": 2.0,
                            "hc_checks_down_total": 1.0,
                        }
                    ),
                    {"kind": "text/plain"},
                ),
                headers=headers,
            )
            for path, headers in (
                ("/projects/{project}/metrics/{read}", {}),
                ("/projects/{project}/checks/metrics/{read}", {}),
                ("/projects/{project}/metrics/", {"Authorization": "Bearer {read}"}),
            )
        ),
        Step("GET", "/projects/{project}/metrics/", Expected(401)),
        ours(Step("GET", "/projects/{project}/metrics/" + "x" * 32, Expected(403)), 27, 401),
        ours(Step("GET", f"/projects/{NOBODY}/metrics/{{read}}", Expected(200)), 27, 403),
    ),
    scene(
        "The server itself",
        Step("GET", "/api/v1/status/", Expected(200, "OK")),
        Step("GET", "/api/v3/status/", Expected(200, "OK")),
        Step(
            "GET",
            "/api/v3/metrics/",
            Expected(
                200,
                {
                    "ts": "<now>",
                    "max_ping_id": Anything(),
                    "max_notification_id": Anything(),
                    "num_unprocessed_flips": Anything(),
                },
            ),
            headers={"X-Metrics-Key": "{metrics}"},
        ),
        missing("GET", "metrics/", 403, key=None, headers={"X-Metrics-Key": "wrong"}),
        Step("POST", f"/api/v3/notifications/{NOBODY}/status", Expected(200, "")),
        Step("POST", f"/api/v3/notifications/{NOBODY}/status", Expected(200, ""), content=b"MessageStatus=failed"),
        ours(Step("GET", "/accounts/login/", Expected(200)), 17, 404),
    ),
)

# What needs a clock that can be turned, or another API of Lifesign's.
HERE = (
    scene(
        "A change of the timing",
        make("edited"),
        ping("{edited.uuid}"),
        Wait(7200),
        ours(
            api("POST", "checks/{edited.uuid}", 200, having(status="down"), body={"timeout": 60, "grace": 60}),
            11,
            told=having(status="up"),
        ),
    ),
    scene(
        "An acknowledged outage",
        make("acked", slug="acked"),
        ping("{acked.uuid}/fail"),
        here("POST", "/v1/heartbeats/acked/ack", key="full"),
        ours(replace(state("acked", status="down"), is_ours=True), 13, told=having(status="up")),
    ),
    scene(
        "Time in which nobody listened",
        make("waited", timeout=60, grace=60),
        ping("{waited.uuid}"),
        Wait(600, is_blind=True),
        ours(state("waited", status="down"), 14, told=having(status="grace")),
        ping("{waited.uuid}"),
        ours(flips("waited", 1, 0, 1), 14, told={"flips": [having(up=1)]}),
    ),
    scene(
        "A short grace",
        replace(ping("{ping}/hasty/start?create=1&grace=5", 201, "Created"), is_ours=True),
        Wait(59),
        ours(
            get("checks/?slug=hasty", {"checks": [having(status="down")]}),
            15,
            told={"checks": [having(status="new", started=True)]},
        ),
        Wait(1),
        get("checks/?slug=hasty", {"checks": [having(status="down")]}),
    ),
    scene(
        "A message is a row before it is sent",
        make("told", channels="ops", slug="told"),
        ping("{told.uuid}/fail"),
        here("GET", "/v1/heartbeats/told", key="full", keep="heartbeat"),
        here("GET", "/v1/incidents?heartbeat={heartbeat.id}", key="full", keep="incidents"),
        ours(
            here("GET", "/v1/incidents/{incidents.incidents.0.id}", told=having(notifications=[]), key="full"),
            16,
            told=having(notifications=[having(kind="page")]),
        ),
    ),
)

SCRIPT = (*MAKING, *FAULTS, *PINGS, *READING, *HERE)
