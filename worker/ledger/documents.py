"""What :file:`read.sql` says of commands and instances, from its JSON documents."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from worker.accounting.state.instances import Holding, Instance
from worker.accounting.state.occupancy import Placement
from worker.engine.ports import Known


def known(doc: dict[str, Any]) -> Known:
    """A command that was seen before."""
    return Known(
        fingerprint=UUID(doc["fingerprint"]),
        status=doc["status"],
        kind=doc["kind"],
        node=doc["node"],
        outcome=doc["outcome"],
    )


def instance(key: UUID, doc: dict[str, Any]) -> Instance:
    """An instance and all that it holds."""
    return Instance(
        key,
        version=doc["version"],
        project=doc["project"],
        user=doc["user"],
        revision=doc["revision"],
        state=doc["state"],
        task=doc["task"],
        os_type=doc["os_type"],
        move=doc["move"],
        stranded=doc["stranded"],
        holdings=tuple(_holding(holding) for holding in doc["holdings"] or ()),
        deleted_at=_time(doc["deleted_at"]),
    )


def _holding(doc: dict[str, Any]) -> Holding:
    return Holding(
        node=doc["node"],
        role=doc["role"],
        request=doc["request"],
        placement=Placement(doc["charge"], frozenset(doc["pins"]), tuple(doc["devices"]), doc["assignment"]),
        claimed_at=datetime.fromisoformat(doc["claimed_at"]),
        lease_expires_at=_time(doc["lease_expires_at"]),
    )


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
