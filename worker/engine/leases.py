"""Leases: what was claimed or prepared for a time only, and not confirmed in it, is given back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid5

from worker.accounting.rules.lifecycle import Expire
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import LedgerUnavailable
from worker.telemetry.logs import get_logger

if TYPE_CHECKING:
    from worker.engine.lanes import Lanes
    from worker.engine.ports import Lease, Ledger

_log = get_logger(__name__)

_AT_ONCE: Final = 500
_EVERY_SECONDS: Final = 1.0
_NAMESPACE: Final = UUID("6f2d1c0e-8a53-5e0b-9d0c-1f9a8f3f6b11")


async def expire_leases(ledger: Ledger, lanes: Lanes) -> None:
    """Put a command on the lane of each lease that ran out, forever.

    Its id is made of the lease, so that however many workers notice it, it
    expires once.
    """
    while True:
        await asyncio.sleep(_EVERY_SECONDS)
        try:
            leases = await ledger.due_leases(_AT_ONCE)
        except LedgerUnavailable as trouble:
            _log.info("expiring leases waits for the database", error=str(trouble))
            continue
        for lease in leases:
            lanes.add(expiry(lease))


def expiry(lease: Lease) -> Item:
    """The command that ends a lease."""
    command = Expire(
        version=1,
        id=uuid5(_NAMESPACE, f"{lease.instance}/{lease.node}/{lease.expired_at.isoformat()}"),
        node=lease.node,
        issued_at=datetime.now(UTC),
        instance=lease.instance,
    )
    return Item(command, fingerprint(command))
