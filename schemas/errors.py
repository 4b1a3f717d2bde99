"""The root of every exception of the product, and what reading a message raises; the tree is in ``worker.errors``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from uuid import UUID

Fault = Literal["malformed", "too_large", "unknown_kind", "unsupported_version"]


class NodeledgerError(Exception):
    """Anything that this product raises of its own."""


class MalformedCommandError(NodeledgerError, ValueError):
    """A message that is no command of this version of the contract.

    ``reason`` is the dead letter's reason and ``detail`` names the field and
    the fault, without the value. ``id``, ``node`` and ``kind`` are what could
    still be read.
    """

    def __init__(
        self, reason: Fault, detail: str, *, id: UUID | None = None, node: str | None = None, kind: str | None = None
    ) -> None:
        super().__init__(detail)
        self.reason: Fault = reason
        self.detail = detail
        self.id = id
        self.node = node
        self.kind = kind
