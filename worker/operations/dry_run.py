"""Previewing what dead letters would do: today's code on the current state, with nothing locked or changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urlsplit

from worker.engine.dry_run import DryRun
from worker.engine.envelope import Envelope
from worker.engine.permissions import Permissions
from worker.ledger.snapshot import snapshot
from worker.setting_types import broker_addresses
from worker.settings import Settings, load_settings

if TYPE_CHECKING:
    import asyncpg

    from schemas import Command
    from worker.ledger.dead_letters import Letter

_DEADLY: Final = "its worker died"
"""How the detail begins of a command that ended its worker: deciding it here could end this program too."""


class Preview(Protocol):
    """Tells what commands would do; they are read a page at a time, and told in order."""

    async def read(self, commands: Sequence[Command]) -> None:
        """Look up what these commands touch."""

    def tell(self, command: Command, letter: Letter | None) -> str:
        """What would become of one that was read, after those told before it."""


class NoPreview:
    """Previews nothing: for those who send anyway."""

    async def read(self, commands: Sequence[Command]) -> None:
        """Nothing to look up."""

    def tell(self, command: Command, letter: Letter | None) -> str:  # noqa: ARG002 - the protocol's signature
        """As much as is known of every command."""
        return "would be tried again"


class DecidedPreview:
    """Previews by deciding."""

    def __init__(self, dry_run: DryRun, user: str | None) -> None:
        self._dry_run = dry_run
        self._user = user

    async def read(self, commands: Sequence[Command]) -> None:
        """Load what they touch."""
        await self._dry_run.read(commands)

    def tell(self, command: Command, letter: Letter | None) -> str:
        """Decide it."""
        if letter is not None and letter.reason == "poison" and letter.detail.startswith(_DEADLY):
            return f"would be tried again; not previewed, since {letter.detail}"
        headers = {} if letter is None else Envelope.of_letter(letter.headers).on_replay()
        return self._dry_run.tell(command, b"", user=self._user, headers=headers)


@asynccontextmanager
async def previewing(pool: asyncpg.Pool) -> AsyncIterator[DecidedPreview]:
    """A preview on the state as it is now; it does not change while it is used."""
    from worker.hypervisor.addresses import Allowed  # with it comes libvirt, which a replay has no need of

    settings = load_settings()
    async with snapshot(pool) as moment:
        dry_run = DryRun(
            moment.load,
            Allowed(settings.hypervisor_allowed).refusal,
            timedelta(seconds=settings.park_deadline_seconds),
            Permissions(settings.permissions),
        )
        yield DecidedPreview(dry_run, _user(settings))


def _user(settings: Settings) -> str | None:
    """The broker user who would send; the broker itself vouches for it when it is sent."""
    if settings.amqp_url is None:
        return None
    name = urlsplit(broker_addresses(settings.amqp_url.get_secret_value())[0]).username
    return None if name is None else unquote(name)
