"""What a guest needs near the host cells it lies on: networks and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.keeping import favouring
from worker.accounting.matching import choose, possible
from worker.accounting.modes import bits, union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.cells import HostCell
    from worker.accounting.devices import Catalog, Demand, Want
    from worker.accounting.flow import Choice
    from worker.accounting.matching import Tiers
    from worker.accounting.requests import Guest


class Nearby:
    """The demands of one guest on the set of host cells it takes (see :class:`~worker.accounting.search.Surroundings`).

    Masks of cells are over positions in ``cells``. ``choice`` holds the
    devices for the last set of cells that satisfied everything.
    """

    def __init__(self, cells: Sequence[HostCell], guest: Guest, demand: Demand) -> None:
        self.cells = cells
        self.demand = demand
        self.networks = network_masks(cells, guest)
        self.choice: Choice = []
        self._sockets = any(want.affinity == "socket" for want in demand.wants)
        self._offered = [self._bound(want) for want in demand.wants if want.affinity in {"required", "legacy"}]
        self._refused = False

    def alike(self, position: int) -> object:
        """What a host cell offers."""
        cell = self.cells[position]
        networks = tuple(mask >> position & 1 for mask in self.networks)
        devices = self.demand.assortment.alike(cell.id) if self.demand.wants else None
        return networks, devices, cell.socket if self._sockets else None

    def possible(self, taken: int, available: int, slots: int) -> bool:
        """Whether enough networks and devices are in reach of ``slots`` more cells."""
        if not slots:
            return True
        return self._networks_possible(taken, available, slots) and self._devices_possible(taken, available, slots)

    def satisfied(self, taken: int) -> bool:
        """Whether the cells have all networks, and devices for every request."""
        if not all(mask & taken for mask in self.networks):
            return False
        tiers = self.tiers(taken)
        if self._refused and not possible(self.demand, tiers):
            return False
        choice = choose(self.demand, tiers)
        self._refused = choice is None
        self.choice = choice or []
        return choice is not None

    def tiers(self, taken: int) -> list[Tiers]:
        """Where each request may take its devices from, for a guest on these cells."""
        self.demand.work.spend(1 + len(self.demand.wants) * (4 + taken.bit_count()) // 8)
        cells = [self.cells[position] for position in bits(taken)]
        return [
            favouring(affine(self.demand.catalog, self.cells, cells, want), kept)
            for want, kept in zip(self.demand.wants, self.demand.kept, strict=True)
        ]

    def _networks_possible(self, taken: int, available: int, slots: int) -> bool:
        """Networks with no cell in common need a cell each, and each cell is near to so many of them only."""
        unmet = [mask & available for mask in self.networks if not mask & taken]
        if not unmet:
            return True
        apart = covered = 0
        for mask in unmet:
            if not mask & covered:
                apart += 1
                covered |= mask
        offered = sorted(sum(mask >> position & 1 for mask in unmet) for position in bits(union(unmet)))
        return all(unmet) and apart <= slots and sum(offered[-slots:]) >= len(unmet)

    def _devices_possible(self, taken: int, available: int, slots: int) -> bool:
        """A request cannot have more than the best cells offer it; nor all of them together more than all cells do."""
        self.demand.work.spend(1 + len(self._offered) // 2)
        for units, offered in self._offered:
            missing = units - sum(offered[position] for position in bits(taken))
            if missing > 0 and sum(sorted(offered[position] for position in bits(available))[-slots:]) < missing:
                return False
        return not self._refused or possible(self.demand, self.tiers(taken | available))

    def _bound(self, want: Want) -> tuple[int, list[int]]:
        """How many units a request must have from the cells, and how many each cell offers it."""
        catalog, stock, work = self.demand.catalog, self.demand.stock, self.demand.work
        work.spend(1 + len(self.cells) // 4)
        unplaced = want.allowed & catalog.by_cell.get(None, 0) if want.affinity == "legacy" else 0
        near = [stock.count(want.allowed & catalog.by_cell.get(cell.id, 0)) for cell in self.cells]
        return want.units - stock.count(unplaced), near


def network_masks(cells: Sequence[HostCell], guest: Guest) -> list[int]:
    """For each network wanted that some host cell is near to, the positions of those cells.

    A network that no cell is near to binds nobody.
    """
    masks = [
        union(1 << position for position, cell in enumerate(cells) if physnet in cell.physnets)
        for physnet in sorted(guest.physnets)
    ]
    if guest.tunneled:
        masks.append(union(1 << position for position, cell in enumerate(cells) if cell.tunneled))
    return [mask for mask in masks if mask]


def affine(catalog: Catalog, cells: Sequence[HostCell], chosen: Sequence[HostCell], want: Want) -> Tiers:
    """Where a request may take its devices from, for a guest on the host cells ``chosen`` out of ``cells``."""
    near = union(catalog.by_cell.get(cell.id, 0) for cell in chosen)
    if want.affinity == "required":
        return ((near,),)
    if want.affinity == "socket":
        if any(cell.socket is None for cell in cells):
            return ((near,),)
        sockets = {cell.socket for cell in chosen}
        return ((near,), (union(catalog.by_cell.get(cell.id, 0) for cell in cells if cell.socket in sockets),))
    unplaced = near | catalog.by_cell.get(None, 0)
    if want.affinity == "legacy":
        return ((near,), (unplaced,))
    return ((near,), (unplaced,), (unplaced, catalog.everything & ~unplaced))
