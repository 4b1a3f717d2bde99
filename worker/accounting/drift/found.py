"""One disagreement, and the sorts there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uuid import UUID

Kind = Literal["orphan", "ghost", "amount", "pages", "cells", "pins", "devices", "host", "unreadable"]
"""*orphan*: a running domain that its node holds no claim for. *ghost*: an allocation without its domain.
*amount*: another number of vCPUs, or other memory. *pages*: other page sizes. *cells*: memory on other host cells.
*pins*: threads on other CPUs. *devices*: other devices. *host*: what is held lies on something that the host has no
more, or has otherwise. *unreadable*: the domain's description cannot be used."""


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement about one instance on one node: a sentence and, where there are two sides, both of them.

    ``where`` tells of a domain that nothing is claimed for here: the nodes that
    have its claim, or since when its instance is deleted.
    """

    node: str
    kind: Kind
    instance: UUID
    detail: str
    ledger: object = None
    hypervisor: object = None
    where: str | None = None

    def document(self) -> dict[str, object]:
        """As it stands in an outcome; what is not known is left out."""
        told: dict[str, object] = {"node": self.node, "kind": self.kind, "instance": self.instance}
        told["detail"] = self.detail
        if self.ledger is not None:
            told |= {"ledger": self.ledger, "hypervisor": self.hypervisor}
        if self.where is not None:
            told["where"] = self.where
        return told
