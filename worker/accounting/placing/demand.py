"""What one instance wants of a host's devices, and what is left for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.host.devices import Catalog, Stock, Want
    from worker.accounting.placing.assortment import Assortment
    from worker.accounting.work import Work


class Demand(NamedTuple):
    """What one instance wants of a host's devices, beside what is left.

    ``kept`` are the offers it holds for each request, ``assortment`` is what is
    left as its requests tell it apart, and ``work`` how much may be spent on
    finding out what it can have.
    """

    catalog: Catalog
    stock: Stock
    wants: Sequence[Want]
    kept: Sequence[int]
    assortment: Assortment
    work: Work

    def explaining(self) -> Demand:
        """The same once it is refused: what is found out further is for the reasons."""
        self.assortment.work = self.work.reasons
        return self._replace(work=self.work.reasons)
