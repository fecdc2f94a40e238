"""Bodies that are too large, from senders that do not look up before they have sent them."""

import json

import pytest

from tests.harness import Lifesign
from tests.wire import connected, listening

MIB = 1024 * 1024
HEAD = b"POST /v1/provision HTTP/1.1\r\nHost: lifesign\r\n"


@pytest.mark.parametrize("is_announced", [True, False])
async def test_a_sender_of_too_much_reads_the_refusal_however_much_it_still_sends(
    lifesign: Lifesign, is_announced: bool
) -> None:
    body = b" " * (20 * MIB)
    sent = b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    in_chunks = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with listening(lifesign) as port, connected(port) as wire:
        # All of it, and only then the answer is looked at, as most clients do.
        await wire.send(HEAD + (sent if is_announced else in_chunks))
        status, headers, told = await wire.answer()

        assert (status, json.loads(told)["error"], headers["connection"]) == (413, "body_too_large", "close")
        assert await wire.is_closed()


async def test_a_sender_that_asks_first_is_refused_before_it_sends(lifesign: Lifesign) -> None:
    async with listening(lifesign) as port, connected(port) as wire:
        await wire.send(HEAD + b"Content-Length: %d\r\nExpect: 100-continue\r\n\r\n" % MIB)

        assert (await wire.answer())[0] == 413
