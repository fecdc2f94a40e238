"""The text of `/openapi.json`, worked out by a process of its own."""

import asyncio
import json
from pathlib import Path

import pytest

from lifesign.app import DESCRIBES, write_description
from lifesign.http.description import Description


async def test_it_is_worked_out_once_elsewhere_however_many_ask(tmp_path: Path) -> None:
    source = f"open({str(tmp_path / 'begun')!r}, 'a').write('x'); print('told', end='')"
    description = Description(dict, ["-c", source])

    told = await asyncio.gather(*(description.text() for _ in range(5)))

    assert {*told, await description.text()} == {b"told"}
    assert (tmp_path / "begun").read_text() == "x"


async def test_who_hangs_up_ends_nothing_for_the_others() -> None:
    description = Description(dict, ["-c", "print('told', end='')"])
    first = asyncio.create_task(description.text())
    await asyncio.sleep(0)
    first.cancel()

    assert await description.text() == b"told"


@pytest.mark.parametrize("source", ["raise SystemExit(3)", "print('half', flush=True); raise SystemExit(1)", "pass"])
async def test_it_is_worked_out_here_where_the_other_process_fails(source: str) -> None:
    assert await Description(lambda: {"openapi": "3.1.0"}, ["-c", source]).text() == b'{"openapi":"3.1.0"}'


async def test_what_is_under_way_ends_with_the_server() -> None:
    came: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
    listener = await asyncio.start_server(lambda *both: came.put_nowait(both), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    source = f"import socket, time; held = socket.create_connection(('127.0.0.1', {port})); time.sleep(600)"
    description = Description(dict, ["-c", source])
    asking = asyncio.create_task(description.text())
    reader, writer = await came.get()

    await description.close()

    assert await reader.read() == b""
    writer.close()
    with pytest.raises(asyncio.CancelledError):
        await asking
    listener.close()


async def test_another_process_tells_what_this_one_would(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_description()
    here = capfdbinary.readouterr().out

    assert await Description(dict, ["-c", DESCRIBES]).text() == here
    assert json.loads(here)["info"]["title"] == "Lifesign"
