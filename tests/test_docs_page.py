import re

from tests.harness import Lifesign


async def test_the_page_of_the_api_loads_nothing_from_elsewhere(lifesign: Lifesign) -> None:
    page = await lifesign.client(None).get("/docs")
    wanted = re.findall(r'(?:src|href)="([^"]+)"', page.text)

    assert page.status_code == 200
    assert {path.rsplit("/", 1)[1] for path in wanted} == {"swagger-ui.css", "favicon.png", "swagger-ui-bundle.js"}
    for path in wanted:
        assert (await lifesign.client(None).get(path)).status_code == 200
