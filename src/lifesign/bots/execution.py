"""Runs as they go on in this process: each a task with a lease, a deadline, and somebody who may cancel it."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import structlog

from lifesign.bots import budget, ending, outcomes, reports, run_store, running
from lifesign.bots.budget import Usage
from lifesign.bots.outcomes import Outcome
from lifesign.bots.records import Run
from lifesign.bots.rules import ENDED, LeaseLost
from lifesign.bots.runners.contract import Runner, Totals
from lifesign.bots.running import LEASE_MS
from lifesign.bots.starting import Started
from lifesign.bots.tracing import Tracer
from lifesign.bots.watching import Watcher
from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply
from lifesign.clock import Clock, EpochMs
from lifesign.db import Database, StorageUnavailable

log = structlog.get_logger("lifesign.bots")

# How often it is looked whether somebody wants a run to end; a cancelled run is to be gone within 5 s.
_LOOK_S = 0.5
_RENEW_S = 20.0
_END_S = 4.0
_PRECHECK_S = 5.0
_FINISH_TRIES = 5
_OK = 200
MOST_SECONDS = 3600
"""A run takes no longer."""


@dataclass(slots=True)
class _Held:
    """A run that goes on here."""

    started: Started
    task: asyncio.Task[None] | None = None
    inner: asyncio.Task[Outcome | None] | None = None
    reason: str | None = None
    """Why it was cancelled."""
    is_lost: bool = False


class Ends:
    """Tells whoever waits for a run in this process that it has ended."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    async def wait(self, run_id: str, timeout_s: float) -> None:
        """Return when the run has ended, or after a while."""
        event = self._events.setdefault(run_id, asyncio.Event())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await event.wait()

    def tell(self, run_id: str) -> None:
        """The run has ended."""
        event = self._events.pop(run_id, None)
        if event is not None:
            event.set()

    def forget(self, run_id: str) -> None:
        """Nobody waits any more."""
        self._events.pop(run_id, None)


class Closing(Protocol):
    """Something that is let go of at the end."""

    async def aclose(self) -> None:
        """Let go of it."""
        ...


class Executor:
    """Does runs that were started here."""

    def __init__(
        self,
        db: Database,
        clock: Clock,
        runners: Mapping[str, Runner],
        *,
        prechecks: OutboundClient,
        tracer: Tracer,
        watcher: Watcher,
        on_end: Callable[[], None],
        owned: Sequence[Closing] = (),
    ) -> None:
        """prechecks: asks addresses of prechecks. on_end: there is a free place. owned: closed with this."""
        self._tracer = tracer
        self._watcher = watcher
        self._db = db
        self._clock = clock
        self._runners = runners
        self._prechecks = prechecks
        self._on_end = on_end
        self._owned = owned
        self._held: dict[str, _Held] = {}
        self._watching: asyncio.Task[None] | None = None
        self.ends = Ends()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def kinds(self) -> frozenset[str]:
        """The runners there are."""
        return frozenset(self._runners)

    def runner(self, kind: str) -> Runner | None:
        """Who does runs of this kind."""
        return self._runners.get(kind)

    def begin(self, started: Started) -> None:
        """Do a run, beside everything else."""
        held = self._held[started.run.id] = _Held(started)
        held.task = asyncio.create_task(self._do(held), name=f"bot.{started.run.id}")
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), name="bots.watch")

    async def settle(self, woken: asyncio.Event) -> bool:
        """Wait until something that goes on ends, or until `woken`; True when there was something."""
        tasks = [each.task for each in self._held.values() if each.task is not None]
        if not tasks:
            return False
        waiting = asyncio.create_task(woken.wait())
        await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        return True

    async def stop(self) -> None:
        """End what goes on: the lease of what could not be ended here runs out."""
        for held in self._held.values():
            self._cancel(held, "stopped")
        await asyncio.gather(*(each.task for each in self._held.values() if each.task), return_exceptions=True)
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)

    async def close(self) -> None:
        """Let go of connections."""
        for client in self._owned:
            await client.aclose()

    async def has_ended(self, run: Run) -> None:
        """Tell whoever wants to know of a run that has ended, here or elsewhere."""
        self.ends.tell(run.id)
        if run.status in ENDED:
            await self._watcher.tell(run)
            await self._tracer.tell(run)

    # Watching -------------------------------------------------------------------------------------------------------
    async def _watch(self) -> None:
        """Renew leases, and end what somebody wants to end or what was lost; until nothing goes on."""
        loop = asyncio.get_running_loop()
        renewed_at = loop.time()
        while self._held:
            await asyncio.sleep(_LOOK_S)
            tokens = {run_id: held.started.run.lease_token for run_id, held in self._held.items()}
            if not tokens:
                return
            is_due = loop.time() - renewed_at >= _RENEW_S
            with contextlib.suppress(StorageUnavailable):
                if is_due:
                    until = EpochMs(self._clock.now() + LEASE_MS)
                    reasons = await self._db.write(run_store.renew, tokens, until)
                    renewed_at = loop.time()
                else:
                    reasons = await self._db.read(run_store.cancel_reasons, tokens)
                self._heed(tokens, reasons)

    def _heed(self, tokens: Mapping[str, int], reasons: Mapping[str, str | None]) -> None:
        for run_id in tokens:
            held = self._held.get(run_id)
            if held is None or held.inner is None or held.inner.done():
                continue
            if run_id not in reasons:
                held.is_lost = True
                held.inner.cancel()
            elif (reason := reasons[run_id]) is not None:
                self._cancel(held, reason)

    @staticmethod
    def _cancel(held: _Held, reason: str) -> None:
        if held.reason is None:
            held.reason = reason
            if held.inner is not None:
                held.inner.cancel()

    # Doing ----------------------------------------------------------------------------------------------------------
    async def _do(self, held: _Held) -> None:
        started = held.started
        run = started.run
        try:
            outcome = await self._outcome(held)
            if outcome is not None and not held.is_lost:
                await self._finish(started, outcome)
        except LeaseLost:
            log.warning("bot_run.superseded", run_id=run.id)
        except Exception:  # the edge of a run: logged, and its lease runs out
            log.exception("bot_run.crashed", run_id=run.id)
        finally:
            self._held.pop(run.id, None)
            self.ends.tell(run.id)
            self._on_end()

    async def _outcome(self, held: _Held) -> Outcome | None:
        """What became of it; None when somebody else ends it."""
        started = held.started
        progress = Recorder(self._db, self._clock, started)
        held.inner = asyncio.create_task(self._run(started, progress), name=f"runner.{started.run.id}")
        if held.reason is not None:
            held.inner.cancel()
        # Real time: a manual clock stands still while a run goes on.
        done, _ = await asyncio.wait({held.inner}, timeout=started.limits.timeout_ms / 1000)
        is_late = not done
        if is_late:
            held.inner.cancel()
            done, _ = await asyncio.wait({held.inner}, timeout=_END_S)
            if not done:
                log.error("bot_run.not_ended", run_id=started.run.id)
        if is_late and held.reason is None:
            return Outcome("error", "timeout", error_message="The run took longer than it may")
        if not done or held.inner.cancelled():
            return Outcome("cancelled", held.reason or "stopped")
        error = held.inner.exception()
        if isinstance(error, LeaseLost):
            raise error
        if error is not None:
            log.error("bot_run.failed", run_id=started.run.id, exc_info=error)
            return Outcome("error", "runner_error", error_message="A fault of this server, see its log")
        return held.inner.result()

    async def _run(self, started: Started, progress: "Recorder") -> Outcome | None:
        refused = await self._precheck(started)
        if refused is not None:
            return refused
        kind = started.run.runner or ""
        runner = self._runners.get(kind)
        if runner is None:
            words = f"This server has no runtime for runners of kind {kind}"
            return Outcome("error", "runtime_missing", error_message=words)
        return await runner.run(started, progress)

    async def _precheck(self, started: Started) -> Outcome | None:
        """Ask whether there is anything to do, where the schedule wants that; None: go on."""
        told = started.schedule.options.precheck
        if told is None or started.run.kind == "trigger":
            return None
        wake = await self._wakes(told["url"])
        if wake is None:
            if told.get("on_error") == "error":
                return Outcome("error", "precheck_failed", error_message="The precheck gave no answer that can be read")
            return None
        return None if wake else Outcome("skipped", "precheck")

    async def _wakes(self, url: str) -> bool | None:
        """What a precheck says; None when it says nothing that can be read."""
        reply = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PRECHECK_S):
                reply = await self._prechecks.get(url, {"accept": "application/json"})
        if not isinstance(reply, HttpReply) or reply.status != _OK or not reply.is_whole:
            return None
        try:
            told = msgspec.json.decode(reply.body, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        wake = told.get("wake", True)
        return wake if isinstance(wake, bool) else None

    async def _finish(self, started: Started, outcome: Outcome) -> None:
        run = started.run
        for attempt in range(_FINISH_TRIES):
            try:
                ended = await self._db.write(
                    ending.finish, run.id, run.lease_token, outcomes.redacted(outcome), self._clock.now()
                )
                break
            except StorageUnavailable:
                if attempt == _FINISH_TRIES - 1:
                    raise
                await asyncio.sleep(0.5 * 2**attempt)
        else:  # pragma: no cover - the last attempt breaks or raises
            return
        log.info(
            "bot_run.ended",
            project_id=run.project_id,
            schedule_id=run.schedule_id,
            run_id=run.id,
            kind=run.kind,
            status=ended.status,
            reason=ended.reason,
            took_ms=ended.duration_ms,
        )
        await self.has_ended(ended)


class Recorder:
    """Writes down what a run costs and says, as it goes. Implements `Progress`."""

    def __init__(self, db: Database, clock: Clock, started: Started) -> None:
        self._db = db
        self._clock = clock
        self._run = started.run
        self._tariff = started.tariff
        self._totals = Totals()
        self.left = started.run.reserved

    async def spend(self, usage: Usage, model: str | None = None, nano_usd: int | None = None) -> int:
        units = budget.cost(usage, model or self._run.model, self._tariff, nano_usd)
        self.left = await self._db.write(
            running.book, self._run.id, self._run.lease_token, usage, units=units, now=self._clock.now()
        )
        return self.left

    async def spend_total(self, told: Totals) -> None:
        before, self._totals = self._totals, told
        usage = grown(before, told)
        if usage is not None:
            await self.spend(usage)

    async def say(self, role: str, content: str, *, calls: int = 0, **more: Any) -> None:
        entry = {"at": self._clock.now(), "role": role, "content": reports.redacted(content)} | more
        await self._db.write(running.note, self._run.id, self._run.lease_token, [entry], calls)


def grown(before: Totals, after: Totals) -> Usage | None:
    """What came between two counts of a whole run; None for nothing."""
    tokens_in = max(0, after.input_tokens - before.input_tokens)
    tokens_out = max(0, after.output_tokens - before.output_tokens)
    requests = max(0, after.requests - before.requests)
    if not (tokens_in or tokens_out or requests):
        return None
    return Usage(tokens_in, tokens_out, requests=requests)
