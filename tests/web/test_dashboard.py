"""The dashboard of a self-service project, in a browser that has shown a key and nothing else."""

import html
import re
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from lifesign.auth import service as auth
from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.web.visits import Visit, VisitSigner
from tests.faults.server import serving
from tests.harness import Json, Lifesign, MakeLifesign
from tests.projects.visitors import SECRET, code_of, visitor
from tests.telemetry.requests import body_of
from tests.telemetry.senders import sender
from tests.web.browser import Browser, browser, executed_by, said, signed_up
from tests.web.test_telemetry import MARKUP, conversation

DAY_S = 24 * 3600
KEY = re.compile(r"lk_(?:agent|ingest)_[\w-]{43}")


async def provisioned(lifesign: Lifesign) -> Json:
    async with visitor(lifesign) as someone:
        return await someone.provision()


async def opened(lifesign: Lifesign, key: str) -> Browser:
    """A browser that has shown a key."""
    shown = browser(lifesign)
    await shown.get("/dashboard")
    assert await shown.post("/dashboard/signin", {"key": key}) == "/dashboard"
    await shown.get("/dashboard")
    return shown


async def send(lifesign: Lifesign, made: Json, *spans: Json) -> None:
    async with lifesign.client(made["producer_key"]) as client:
        answer = await client.post("/v1/traces", content=body_of(*spans), headers={"Content-Type": "application/json"})
    assert answer.status_code == 202, answer.text


async def told(lifesign: Lifesign, made: Json, method: str, path: str) -> Json:
    async with lifesign.client(made["agent_key"]) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


# Showing a key ------------------------------------------------------------------------------------------------------
async def test_nobody_sees_two_forms_with_the_project_of_the_address(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    nobody = browser(lifesign)

    page = await nobody.get(f"/dashboard?project={made['project_id']}")

    assert "Sign in with the agent key" in said(page)
    assert f'name="project_id" type="text" value="{made["project_id"]}"' in page
    assert executed_by(page) == []
    assert nobody.last.headers["content-security-policy"].startswith("default-src 'self';")
    assert nobody.last.headers["cache-control"] == "no-store"


async def test_the_agent_key_opens_it_by_a_cookie_that_holds_nothing_of_the_key(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    nobody = browser(lifesign)
    await nobody.get("/dashboard")

    place = await nobody.post("/dashboard/signin", {"key": f" {made['agent_key']} "})

    cookie = nobody.last.headers["set-cookie"]
    assert place == "/dashboard"
    assert made["agent_key"] not in cookie
    assert re.search(r"; HttpOnly; Max-Age=43200; Path=/dashboard; SameSite=strict$", cookie)
    page = await nobody.get("/dashboard")
    assert f'<span class="tag mono">{made["project_id"]}</span>' in page
    assert made["agent_key"] not in page


async def test_over_tls_the_cookie_is_for_tls_only(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(public_url="https://lifesign.example.org") as lifesign:
        made = await provisioned(lifesign)
        nobody = browser(lifesign)
        await nobody.get("/dashboard")
        assert nobody.last.headers["set-cookie"].endswith("; Secure")
        # The browser of the tests speaks no TLS, and would not send it back.
        kept = nobody.last.headers["set-cookie"].partition(";")[0]

        await nobody.post("/dashboard/signin", {"key": made["agent_key"]}, Cookie=kept)

        assert nobody.last.headers["set-cookie"].endswith("; Secure")


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lk_agent_" + "x" * 43, "Agent key is not known."),
        ("", "Agent key is not known."),
        ("schlüssel", "Agent key is not known."),
        ("producer", "Agent key is another one: this key does not read."),
    ],
)
async def test_other_keys_are_refused_and_not_repeated(lifesign: Lifesign, key: str, words: str) -> None:
    made = await provisioned(lifesign)
    shown = made["producer_key"] if key == "producer" else key
    nobody = browser(lifesign)
    await nobody.get("/dashboard")

    page = await nobody.post("/dashboard/signin", {"key": shown}, expect=400)

    assert f'<p class="fault" id="key-says">{words}</p>' in page
    assert not shown or shown not in page
    assert "lifesign_dashboard=" not in nobody.last.headers["set-cookie"]


async def test_an_expired_key_and_a_revoked_one_are_told_apart(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        made = await someone.sign_up()
        again = await someone.provision()
        body = {name: again[name] for name in ("project_id", "recovery_code")}
        await someone.told("POST", "/v1/recover", body)
    nobody = browser(lifesign)
    await lifesign.advance(20 * DAY_S)

    await nobody.get("/dashboard")
    assert "Agent key was revoked." in said(
        await nobody.post("/dashboard/signin", {"key": again["agent_key"]}, expect=400)
    )
    assert "Agent key expired at 2026-01-19T12:00:00.000Z." in said(
        await nobody.post("/dashboard/signin", {"key": made["agent_key"]}, expect=400)
    )


async def test_a_key_in_the_address_opens_nothing(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    nobody = browser(lifesign)

    page = await nobody.get(f"/dashboard?key={made['agent_key']}")

    assert "Sign in with the agent key" in said(page)
    async with lifesign.client(made["agent_key"]) as client:
        assert "Sign in with the agent key" in (await client.get("/dashboard")).text


async def test_tries_are_counted_by_network_and_apart_from_recoveries(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(recover_limit_per_hour=2) as lifesign:
        made = await provisioned(lifesign)
        nobody = browser(lifesign)
        await nobody.get("/dashboard")
        for _ in range(2):
            await nobody.post("/dashboard/signin", {"key": "guess"}, expect=400)

        page = await nobody.post("/dashboard/signin", {"key": made["agent_key"]}, expect=429)

        assert "Too many keys were tried; try again later." in said(page)
        assert nobody.last.headers["retry-after"] == "3600"
        await nobody.post("/dashboard/recover", {"project_id": "a-00000000", "recovery_code": "0"}, expect=403)
        await lifesign.advance(3600)
        await nobody.post("/dashboard/signin", {"key": made["agent_key"]})


# What is forged -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/dashboard/signin", "/dashboard/signout", "/dashboard/recover"])
async def test_a_form_without_the_token_of_this_browser_does_nothing(lifesign: Lifesign, path: str) -> None:
    made = await provisioned(lifesign)
    owner, other = await opened(lifesign, made["agent_key"]), browser(lifesign)
    await other.get("/dashboard")
    fields = {"key": made["agent_key"], "project_id": made["project_id"], "recovery_code": made["recovery_code"]}

    for csrf in ("", "0" * 64, other.csrf):
        await owner.post(path, fields | {"csrf": csrf}, expect=403)
    await owner.post(path, fields, expect=403, Sec_Fetch_Site="cross-site")
    await browser(lifesign).post(path, fields | {"csrf": owner.csrf}, expect=403)

    assert made["project_id"] in await owner.get("/dashboard")
    assert (await told(lifesign, made, "GET", "/v1/dashboard"))["ok"] is True


def test_a_cookie_counts_as_it_was_made_until_it_ends() -> None:
    visit = Visit("shop-3f9c2ab1", f"key_{'a' * 32}", EpochMs(1000))
    signer = VisitSigner([b"new", b"old"])
    token = signer.token(visit)

    assert signer.read(token, EpochMs(999)) == visit
    assert signer.read(token, EpochMs(1000)) is None
    assert signer.read(VisitSigner([b"old"]).token(visit), EpochMs(0)) == visit
    assert signer.read(VisitSigner([b"other"]).token(visit), EpochMs(0)) is None
    for old, new in (("shop", "shoq"), (f"key_{'a' * 32}", f"key_{'b' * 32}"), (".1000.", ".9000.")):
        assert old in token
        assert signer.read(token.replace(old, new), EpochMs(0)) is None
    for nonsense in ("", "a.b.c.d", token[:-1], token + "0", "ü" * 99):
        assert signer.read(nonsense, EpochMs(0)) is None


async def test_the_cookie_is_no_way_into_anything_else(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    owner = await opened(lifesign, made["agent_key"])
    [token] = [each.value for each in owner.http.cookies.jar if each.name == "lifesign_dashboard"]

    for path in ("/", "/telemetry", "/settings"):
        await owner.get(path, expect=303, Cookie=f"lifesign_dashboard={token}; lifesign_session={token}")
    async with lifesign.client(token) as client:
        assert (await client.get("/v1/dashboard")).status_code == 401
    assert (await owner.http.get("/v1/dashboard")).status_code == 401


# Looking ------------------------------------------------------------------------------------------------------------
async def test_it_tells_what_the_api_tells(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    await send(lifesign, made, *(span for n in range(12) for span in conversation(f"run/{n} {MARKUP}")))
    packet = (await told(lifesign, made, "POST", "/v1/runs/diagnose"))["packet"]
    owner = await opened(lifesign, made["agent_key"])

    page = await owner.get("/dashboard")

    seen = await told(lifesign, made, "GET", "/v1/dashboard")
    assert (seen["totals"]["records"], seen["quota"]["used"], len(seen["recent_sessions"])) == (36, 36, 10)
    assert re.search(r"<b>36</b><span>records</span>", page)
    assert re.search(r'<b>12</b><span class="state firing">failed</span>', page)
    assert re.search(r"<b>14,400</b><span>tokens</span>", page)
    text = said(page)
    assert "Used 36 records Limit 1,000,000 Remaining 999,964" in text
    assert seen["quota"]["resets_at"][:19] in page
    assert packet["packet_id"] in page
    assert len(seen["top_issues"]) > 0
    for issue in seen["top_issues"]:
        assert html.escape(issue["title"], quote=True) in page
        assert f"?span={issue['evidence_ids'][0]}#span" in page
    assert page.count('<a href="/dashboard/sessions/') == 10
    for address in seen["links"].values():
        assert address in page
    assert executed_by(page) == []
    assert MARKUP not in page


async def test_what_a_span_is_called_is_text_in_the_report_and_on_the_dashboard(lifesign: Lifesign) -> None:
    # Without a number, which an issue would mask.
    called = "a|b `c` <script>alert(document)</script>"
    made = await provisioned(lifesign)
    root, _, tool = conversation()
    await send(lifesign, made, root | {"name": called}, tool | {"name": called, "attributes": []})
    await told(lifesign, made, "POST", "/v1/runs/diagnose")
    owner = await opened(lifesign, made["agent_key"])

    pages = [await owner.get(path) for path in ("/dashboard", "/dashboard/sessions/s%2F1%20%C3%A9")]
    async with lifesign.client(made["agent_key"]) as client:
        report = (await client.get("/v1/reports/latest.md")).text

    assert (await told(lifesign, made, "GET", "/v1/dashboard"))["top_issues"][0]["title"].endswith(called)
    for page in pages:
        assert html.escape(called) in page
        assert executed_by(page) == []
    [row] = [line for line in report.splitlines() if line.startswith("| ") and "a\\|b" in line]
    assert len(re.findall(r"(?<!\\)\|", row)) == 6
    assert "\\`c\\` &lt;script&gt;alert(document)&lt;/script&gt;" in row


async def test_an_empty_project_says_how_to_begin(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)

    page = said(await (await opened(lifesign, made["agent_key"])).get("/dashboard"))

    assert "No diagnosis has been run yet." in page
    assert "/v1/runs/diagnose -H" in page
    assert "Nothing arrived in the last day." in page
    assert "permanent" in page


async def test_a_sandbox_says_when_it_expires_and_a_full_one_that_it_is_full(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(quota_spans=3) as lifesign:
        async with visitor(lifesign) as someone:
            made = await someone.sign_up()
        await send(lifesign, made, *conversation())

        page = await (await opened(lifesign, made["agent_key"])).get("/dashboard")

        assert "2026-01-19T12:00:00.000Z" in page
        assert "Remaining nothing New records are refused until then." in said(page)


async def test_a_session_is_a_waterfall_whose_ways_stay_on_the_dashboard(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    spans = conversation()
    await send(lifesign, made, *spans)
    owner = await opened(lifesign, made["agent_key"])
    record_id = f"rec_{spans[2]['traceId']}{spans[2]['spanId']}"

    page = await owner.get(f"/dashboard/sessions/s%2F1%20%C3%A9?span={record_id}")
    trace = await owner.get(f"/dashboard/traces/{spans[0]['traceId']}?span={record_id}")

    assert page.count('<svg class="fall"') == trace.count('<svg class="fall"') == 3
    assert "no route to host" in said(page)
    assert "no route to host" in said(trace)
    for each in (page, trace):
        ways = [place for place in re.findall(r'href="(/[^"]*)"', each) if not place.startswith("/static/")]
        assert [place for place in ways if not place.startswith("/dashboard")] == ["/docs"]
        assert len(ways) > 4
    await owner.get("/dashboard/sessions/none", expect=404)
    await owner.get(f"/dashboard/traces/{'0' * 32}", expect=404)


async def test_another_projects_sessions_are_nobodys(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    owner = await opened(lifesign, made["agent_key"])
    async with sender(lifesign) as other:
        spans = conversation("secret")
        await other.told(*spans)

        page = await owner.get(f"/dashboard?project={other.project_id}")

        assert "secret" not in page
        assert f"To see {other.project_id} , sign out and show a key of it." in said(page)
    await owner.get("/dashboard/sessions/secret", expect=404)
    await owner.get(f"/dashboard/traces/{spans[0]['traceId']}", expect=404)


async def test_a_key_grants_here_what_it_grants_there(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    await send(lifesign, made, *conversation("one"))
    _, key = await lifesign.node.db.write(
        auth.create_key,
        auth.operator(made["project_id"]),
        name="numbers",
        scopes=["dashboard:read"],
        expires_at=None,
        now=lifesign.now(),
    )

    owner = await opened(lifesign, key)

    assert "This browser has shown numbers" in said(await owner.get("/dashboard"))
    await owner.get("/dashboard/sessions/one", expect=303)


async def test_people_who_are_signed_in_need_a_key_as_everybody_does(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)

    assert "Sign in with the agent key" in said(await owner.get("/dashboard"))


# The end of a visit -------------------------------------------------------------------------------------------------
async def test_signing_out_ends_it(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    owner = await opened(lifesign, made["agent_key"])

    assert await owner.post("/dashboard/signout") == "/dashboard"

    assert "Sign in with the agent key" in said(await owner.get("/dashboard"))
    assert "Your visit is over" not in said(await owner.get("/dashboard"))
    await owner.get("/dashboard/sessions/any", expect=303)
    await owner.get(f"/dashboard/traces/{'0' * 32}", expect=303)


async def test_it_ends_with_the_key_and_after_twelve_hours(lifesign: Lifesign) -> None:
    made, other = await provisioned(lifesign), await provisioned(lifesign)
    owner, late = await opened(lifesign, made["agent_key"]), await opened(lifesign, other["agent_key"])
    kept = f"lifesign_dashboard={late.http.cookies['lifesign_dashboard']}"
    async with visitor(lifesign) as someone:
        body = {name: made[name] for name in ("project_id", "recovery_code")}
        await someone.told("POST", "/v1/recover", body)

    assert "Your visit is over, or your key is no longer good: sign in again." in said(await owner.get("/dashboard"))
    assert 'lifesign_dashboard="";' in owner.last.headers["set-cookie"] + owner.last.headers.get_list("set-cookie")[-1]

    await lifesign.advance(12 * 3600 - 1)
    assert other["project_id"] in await late.get("/dashboard", Cookie=kept)
    await lifesign.advance(1)
    assert "Your visit is over" in said(await late.get("/dashboard", Cookie=kept))


# Recovering ---------------------------------------------------------------------------------------------------------
async def test_new_keys_stand_in_one_answer_and_work(lifesign: Lifesign) -> None:
    made = await provisioned(lifesign)
    owner = await opened(lifesign, made["agent_key"])
    await owner.get("/dashboard")
    fields = {"project_id": made["project_id"], "recovery_code": f" {made['recovery_code'].upper()}"}

    page = await owner.post("/dashboard/recover", fields, expect=200)

    producer, agent = KEY.findall(page)
    assert (producer[:10], agent[:9]) == ("lk_ingest_", "lk_agent_")
    assert {producer, agent}.isdisjoint({made["producer_key"], made["agent_key"]})
    assert page.count('<div class="copied">') == 2
    assert owner.last.headers["cache-control"] == "no-store"
    assert executed_by(page) == []
    assert "Sign in with the agent key" in said(await owner.get("/dashboard"))
    await owner.post("/dashboard/signin", {"key": made["agent_key"]}, expect=400)
    await owner.post("/dashboard/signin", {"key": agent})
    await send(lifesign, {"producer_key": producer}, *conversation())


@pytest.mark.parametrize(
    ("fields", "status", "field", "words"),
    [
        ({"recovery_code": ""}, 400, "recovery_code", "Recovery code is needed."),
        ({"project_id": " "}, 400, "project_id", "Project is needed."),
        ({"recovery_code": "0" * 64}, 403, "recovery_code", "Recovery code is not the one of this project."),
        ({"project_id": "nobody-00000000"}, 403, "recovery_code", "Recovery code is not the one of this project."),
        ({"project_id": "gone"}, 404, "project_id", "Project is gone."),
        ({"project_id": "default"}, 403, "project_id", "Project did not make itself: it has no codes."),
    ],
)
async def test_what_is_wrong_stands_beside_its_field_and_changes_nothing(
    start_lifesign: MakeLifesign, fields: dict[str, str], status: int, field: str, words: str
) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr(SECRET)) as lifesign:
        made = await provisioned(lifesign)
        owner = await opened(lifesign, made["agent_key"])
        sent = {name: made[name] for name in ("project_id", "recovery_code")} | fields
        if sent["project_id"] in {"gone", "default"}:
            if sent["project_id"] == "default":
                sent["project_id"] = await lifesign.node.db.read(projects.id_of, "default")
            sent["recovery_code"] = code_of(SECRET, f"recover:{sent['project_id']}")

        page = await owner.post("/dashboard/recover", sent, expect=status)

        assert f'<p class="fault" id="{field}-says">{words}</p>' in page
        assert not sent["recovery_code"] or sent["recovery_code"] not in page
        # Nobody was signed out by it either.
        assert f'<span class="tag mono">{made["project_id"]}</span>' in await owner.get("/dashboard")


async def test_recoveries_are_counted_with_those_of_the_api(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(recover_limit_per_hour=2) as lifesign:
        made = await provisioned(lifesign)
        body = {name: made[name] for name in ("project_id", "recovery_code")}
        nobody = browser(lifesign)
        async with lifesign.client(None) as client:
            assert (await client.post("/v1/recover", json=body | {"recovery_code": "0"})).status_code == 403
            await nobody.get("/dashboard")
            await nobody.post("/dashboard/recover", body | {"recovery_code": "0"}, expect=403)

            page = await nobody.post("/dashboard/recover", body, expect=429)

            assert "Too many recoveries; try again later." in said(page)
            assert nobody.last.headers["retry-after"] == "3600"
            assert (await client.post("/v1/recover", json=body)).status_code == 429


async def test_without_codes_there_is_no_form_for_them(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(signup_upgrade_secret=SecretStr("off")) as lifesign:
        nobody = browser(lifesign)

        assert "Recovery is switched off on this server" in said(await nobody.get("/dashboard"))
        fields = {"project_id": "a", "recovery_code": "b"}
        assert "Recovery is switched off" in await nobody.post("/dashboard/recover", fields, expect=503)


# What is left behind ------------------------------------------------------------------------------------------------
def test_no_log_line_and_no_file_has_a_key_or_a_code(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="debug") as server, httpx2.Client(base_url=server.url, timeout=20) as client:
        made = client.post("/v1/provision", json={"project_name": "shop"}).json()

        def sent(path: str, **fields: str) -> httpx2.Response:
            [csrf, *_] = re.findall(r'name="csrf" value="(\w+)"', client.get("/dashboard").text)
            return client.post(path, data={"csrf": csrf} | fields)

        client.get(f"/dashboard?key={made['agent_key']}")
        sent("/dashboard/signin", key=made["producer_key"])
        assert sent("/dashboard/signin", key=made["agent_key"]).status_code == 303
        sent("/dashboard/recover", project_id=made["agent_key"], recovery_code=made["recovery_code"])
        got = sent("/dashboard/recover", project_id=made["project_id"], recovery_code=made["recovery_code"])
        server.terminate()
        assert server.exit_code() == 0

    keys = KEY.findall(got.text)
    log = server.log.read_text()
    secrets = [made["producer_key"], made["agent_key"], made["recovery_code"], *keys]
    assert len(keys) == 2
    assert [name for name in ("dashboard.opened", "dashboard.refused", "project.recovered") if name not in log] == []
    assert [each for each in secrets if each in log] == []
    stored = b"".join(path.read_bytes() for path in (tmp_path / "data").glob("lifesign.db*"))
    assert made["project_id"].encode() in stored
    assert [each for each in secrets if each.encode() in stored] == []
