"""The hypervisors of all nodes: the public face of this package."""

from __future__ import annotations

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from worker.engine.ports import HypervisorUnreachable
from worker.hypervisor.addresses import DEFAULT_PATTERNS, Allowed
from worker.hypervisor.knocking import answers
from worker.hypervisor.node import NodeLink, NotAsked, TooLate
from worker.hypervisor.observe import Shared
from worker.hypervisor.threads import Threads
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from uuid import UUID

    from schemas.inventory import Inventory
    from worker.accounting.state.domains import Domain
    from worker.accounting.state.load import Load
    from worker.engine.ports import Listener
    from worker.hypervisor.connection import Connection

_log = get_logger(__name__)
T = TypeVar("T")

_IDLE_SECONDS: Final = 900.0
_SWEEP_SECONDS: Final = 60.0
_CLOSING_SECONDS: Final = 1.0
_LISTING_DEADLINES: Final = 6


def _unobserved(_call: str, _result: str, _seconds: float) -> None:
    pass


class Hypervisors:
    """Asks hypervisors through libvirt, never longer than a deadline and never one node twice at once.

    A node that fails is left alone for a while that grows from 1 s to 30 s;
    meanwhile, and as long as a call to it has not returned, asking it fails at
    once. ``threads`` bounds the calls of normal speed that run at once,
    ``hung_threads`` how many threads may be lost in calls that do not return.
    ``observe`` is told of every call: its name, what came of it (``ok``,
    ``failed``, ``deadline``, or ``refused`` if the node was not asked), and how
    long it took, in seconds.
    """

    def __init__(
        self,
        *,
        allowed: Sequence[str] = DEFAULT_PATTERNS,
        deadline_seconds: float = 5.0,
        threads: int = 64,
        hung_threads: int = 1024,
        observe: Callable[[str, str, float], None] = _unobserved,
    ) -> None:
        self._allowed = Allowed(allowed)
        self._deadline_seconds = deadline_seconds
        self._threads = Threads(limit=threads, ceiling=threads + hung_threads)
        self._observe = observe
        self._shared = Shared()
        self._links: dict[str, NodeLink] = {}
        self._listener: Listener | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to close connections that nobody uses any more."""
        self._sweeper = asyncio.create_task(self._sweep(), name="hypervisor-sweeper")

    async def close(self) -> None:
        """Close all connections; nobody waits for one that hangs."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeper
        closing = [call.answer for link in self._links.values() if (call := link.hang_up()) is not None]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSING_SECONDS)
        self._threads.close()

    @property
    def stuck_calls(self) -> int:
        """How many calls run on past their deadline."""
        return self._threads.given_up

    @property
    def unreachable_nodes(self) -> int:
        """How many nodes did not answer when they were asked last."""
        return sum(link.failing for link in self._links.values())

    def refusal(self, uri: str) -> str | None:
        """Why this address may not be opened; ``None`` if it may."""
        return self._allowed.refusal(uri)

    async def inventory(self, node: str, uri: str) -> Inventory:
        """What the node has; the same object again as long as nothing changed.

        What of it cannot be used is logged once, and again when it changes.

        Raises:
            HypervisorUnreachable: nothing is known of it.
        """
        answer = await self._ask("inventory", node, uri, lambda link: link.reader.read)
        link = self._links.get(node)
        if link is not None and link.told != answer.oddities:
            link.told = answer.oddities
            _log.warning("parts of what a hypervisor tells cannot be used", node=node, left_out=link.told)
        return answer

    def host_uuid(self, node: str) -> UUID | None:
        """The UUID of the machine that answered for the node last; ``None`` where it tells none."""
        link = self._links.get(node)
        return None if link is None else link.reader.host_uuid

    async def domain_state(self, node: str, uri: str, instance: UUID) -> Literal["absent", "shut_off", "running"]:
        """Whether the instance's domain exists and runs; a paused or crashed one that is not gone runs.

        Raises:
            HypervisorUnreachable: nothing is known, so nothing is proven.
        """
        active = await self._ask("domain_state", node, uri, lambda _: lambda opened: opened.domain_is_active(instance))
        if active is None:
            return "absent"
        return "running" if active else "shut_off"

    async def domains(self, node: str, uri: str) -> list[Domain]:
        """Every domain of the node, within six deadlines since each is read by itself.

        Raises:
            HypervisorUnreachable: nothing is known of it.
        """
        return await self._ask("domains", node, uri, lambda link: link.reader.domains, deadlines=_LISTING_DEADLINES)

    async def load(self, node: str, uri: str) -> Load | None:
        """How busy the host was since it was asked before; ``None`` where it does not tell.

        Raises:
            HypervisorUnreachable: nothing is known of it.
        """
        return await self._ask("load", node, uri, lambda link: link.load.read)

    def report_to(self, listener: Listener) -> None:
        """Tell somebody what happens on watched nodes, and which nodes stop answering and answer again."""
        self._listener = listener

    def watch(self, node: str, uri: str) -> bool:
        """Listen to what happens on a node from the next call to it on, over a connection that stays open.

        Says whether something will be told, as far as that is known: not every driver tells.

        Raises:
            HypervisorUnreachable: its address may not be opened.
        """
        link = self._link(node, uri)
        if link.heard is None:
            link.heard = self._pass_on(asyncio.get_running_loop(), node)
        return link.speaks is not False

    def unwatch(self, node: str) -> None:
        """Listen no more, and give the connection up."""
        link = self._links.get(node)
        if link is not None and link.heard is not None:
            del self._links[node]
            link.hang_up()

    async def knock(self, node: str) -> bool:
        """Whether a node that failed may be back, without a call to it; if so, the next call asks it at once."""
        link = self._links.get(node)
        if link is None or link.busy or not await answers(link.uri):
            return False
        link.retry()
        return True

    def _pass_on(self, loop: asyncio.AbstractEventLoop, node: str) -> Callable[[], None]:
        def heard() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is gone, and with it everybody who listens
                loop.call_soon_threadsafe(self._hear, node)

        return heard

    def _hear(self, node: str) -> None:
        if self._listener is not None:
            self._listener.happened(node)

    async def _ask(
        self,
        name: str,
        node: str,
        uri: str,
        question: Callable[[NodeLink], Callable[[Connection], T]],
        *,
        deadlines: int = 1,
    ) -> T:
        link = self._link(node, uri)
        asked_at = monotonic()
        result = "failed"
        try:
            answer = await link.ask(question(link), deadline_seconds=deadlines * self._deadline_seconds)
            result = "ok"
            self._answered(node, link)
        except HypervisorUnreachable as trouble:
            result = {NotAsked: "refused", TooLate: "deadline"}.get(type(trouble), result)
            self._complain(node, link, trouble)
            raise
        finally:
            self._observe(name, result, monotonic() - asked_at)
        return answer

    def _complain(self, node: str, link: NodeLink, trouble: HypervisorUnreachable) -> None:
        """Tell once that a node does not answer; what else it fails with until it does is for who looks closer."""
        if isinstance(trouble, NotAsked) or trouble.detail == link.complaint:
            return
        first, link.complaint = link.complaint is None, trouble.detail
        if not first:
            _log.debug("a hypervisor does not answer yet", node=node, address=link.uri, error=trouble.detail)
        elif self._listener is not None:
            self._listener.fell_silent(node, link.uri, trouble.detail)
        else:
            _log.warning("a hypervisor does not answer", node=node, address=link.uri, error=trouble.detail)

    def _answered(self, node: str, link: NodeLink) -> None:
        if link.complaint is not None:
            link.complaint = None
            if self._listener is not None:
                self._listener.came_back(node, link.uri)

    def _link(self, node: str, uri: str) -> NodeLink:
        link = self._links.get(node)
        if link is None or link.uri != uri:
            reason = self.refusal(uri)
            if reason is not None:
                raise HypervisorUnreachable(reason)
            if link is not None:
                link.hang_up()
            link = self._links[node] = NodeLink(uri, self._threads, self._shared)
        return link

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            idle_since = monotonic() - _IDLE_SECONDS
            for node, link in [*self._links.items()]:
                if link.last_used < idle_since and not link.busy and link.heard is None:
                    del self._links[node]
                    link.hang_up()
