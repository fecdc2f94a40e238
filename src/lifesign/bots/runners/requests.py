"""Runs done by somebody else's server: one signed request with the job; the answer now, or later by the callback."""

from collections.abc import Callable

import msgspec

from lifesign.bots import service
from lifesign.bots.outcomes import Outcome
from lifesign.bots.runners.contract import INVALID, MAX_ANSWER_BYTES, Progress, job_of, result_of, traceparent
from lifesign.bots.starting import Started
from lifesign.channels.outbound import OutboundClient, clean_text
from lifesign.channels.secrets import SecretBox
from lifesign.channels.sender import HttpReply, HttpRequest
from lifesign.channels.webhook import signature

_OK, _ACCEPTED, _GONE = 200, 202, 410


class HttpRunner:
    """Does runs of bots whose runner is `http`."""

    def __init__(self, outbound: OutboundClient, box: SecretBox, base_url: Callable[[], str]) -> None:
        """outbound: takes as long as a run may, and answers of 1 MiB."""
        self._outbound = outbound
        self._box = box
        self._base_url = base_url

    async def run(self, started: Started, progress: Progress) -> Outcome | None:
        """See `Runner`."""
        reply = await self._outbound.post(self._request(started))
        if not isinstance(reply, HttpReply):
            return Outcome("error", "runner_error", error_message=f"The runner did not answer: {reply.why}")
        if reply.status == _ACCEPTED:
            return None
        if reply.status == _GONE:
            words = "The runner says that it is gone for good"
            return Outcome("error", "runner_error", error_message=words, pauses_as="runner_gone")
        if reply.status != _OK:
            why = clean_text(reply.body)[:200]
            words = f"The runner answered with status {reply.status}{': ' if why else ''}{why}"
            return Outcome("error", "runner_error", error_message=words)
        return await _judged(reply, progress)

    def _request(self, started: Started) -> HttpRequest:
        job = job_of(started) | {"callback_url": f"{self._base_url()}/v1/bot/runs", "token": started.token}
        content = msgspec.json.encode(job)
        seconds = str((started.run.started_at or 0) // 1000)
        secret = service.runner_secret(self._box, started.bot)
        headers = {
            "content-type": "application/json",
            "webhook-id": started.run.id,
            "webhook-timestamp": seconds,
            "webhook-signature": signature(secret, started.run.id, seconds, content=content),
            "traceparent": traceparent(started.run.id),
        }
        return HttpRequest(started.bot.options.runner["url"], headers, content)


async def _judged(reply: HttpReply, progress: Progress) -> Outcome:
    if not reply.is_whole or len(reply.body) > MAX_ANSWER_BYTES:
        return INVALID
    try:
        result = result_of(msgspec.json.decode(reply.body))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return INVALID
    if result is None:
        return INVALID
    if result.totals is not None:
        await progress.spend_total(result.totals)
    return result.outcome
