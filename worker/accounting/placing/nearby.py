"""What a guest needs near the host cells it lies on: networks and devices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.devices import bits
from worker.accounting.placing.keeping import favouring
from worker.accounting.placing.matching import Choice, choose, union

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.host.cells import HostCell
    from worker.accounting.host.devices import Catalog, Demand, Want
    from worker.accounting.placing.guests import Guest
    from worker.accounting.placing.matching import Tiers


class Nearby:
    """The demands of one guest on the host cells it takes; see :class:`~worker.accounting.placing.search.Surroundings`.

    Masks of cells are over positions in ``cells``. ``choice`` holds the
    devices for the last set of cells that satisfied everything.
    """

    def __init__(self, cells: Sequence[HostCell], guest: Guest, demand: Demand) -> None:
        self.cells = cells
        self.demand = demand
        self.networks = network_masks(cells, guest)
        self.choice: Choice = []
        self._wanted = union(want.allowed for want in demand.wants)
        self._near = [demand.catalog.by_cell.get(cell.id, 0) & demand.stock.free for cell in cells]
        self._sockets = any(want.affinity == "socket" for want in demand.wants)
        self._refused = False

    def alike(self, position: int) -> object:
        """What a host cell offers; one with devices that are wanted is like no other."""
        cell = self.cells[position]
        networks = tuple(mask >> position & 1 for mask in self.networks)
        devices = position if self._near[position] & self._wanted else -1
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
        choice = choose(self.demand, self.tiers(taken))
        if choice is None:
            self._refused = True
            return False
        self.choice = choice
        return True

    def tiers(self, taken: int) -> list[Tiers]:
        """Where each request may take its devices from, for a guest on these cells."""
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
        catalog, stock = self.demand.catalog, self.demand.stock
        for want in self.demand.wants:
            if want.affinity not in {"required", "legacy"}:
                continue
            here = union(self._near[position] for position in bits(taken))
            if want.affinity == "legacy":
                here |= catalog.by_cell.get(None, 0)
            missing = want.units - stock.count(want.allowed & here)
            if missing > 0:
                offered = sorted(stock.count(want.allowed & self._near[position]) for position in bits(available))
                if sum(offered[-slots:]) < missing:
                    return False
        if not self._refused:
            return True
        return choose(self.demand, self.tiers(taken | available)) is not None


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
