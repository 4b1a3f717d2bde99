"""What a guest needs near the host cells it lies on: networks and devices."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from worker.accounting.host.modes import bits, union
from worker.accounting.placing.keeping import favouring
from worker.accounting.placing.matching import choose, possible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from schemas.requests import Affinity
    from worker.accounting.host.cells import HostCell
    from worker.accounting.host.devices import Catalog, Want
    from worker.accounting.placing.demand import Demand
    from worker.accounting.placing.flow import Choice
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
        self._sockets = any(want.affinity == "socket" for want in demand.wants)
        self._near = [demand.catalog.by_cell.get(cell.id, 0) for cell in cells]
        self._on_socket = _on_sockets(cells, self._near) if self._sockets else self._near
        self._refused = False
        self._known: dict[int, bool] = {}

    @cached_property
    def _offered(self) -> list[tuple[int, list[int]]]:
        """For each request bound to the cells, what it needs of them and what each has for it."""
        return [self._bound(want) for want in self.demand.wants if want.affinity in {"required", "legacy"}]

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
        if self._refused and not self._all_possible(taken):
            return False
        tiers = self.tiers(taken)
        choice = choose(self.demand, tiers)
        self._refused = choice is None
        self.choice = choice or []
        return choice is not None

    def tiers(self, taken: int) -> list[Tiers]:
        """Where each request may take its devices from, for a guest on these cells."""
        demand = self.demand
        demand.work.spend(2 + taken.bit_count() // 2 + len(demand.wants) // 2)
        near = on_socket = 0
        for position in bits(taken):
            near |= self._near[position]
            on_socket |= self._on_socket[position]
        steps = {want.affinity: _affine(demand.catalog, near, on_socket, want.affinity) for want in demand.wants}
        return [favouring(steps[want.affinity], kept) for want, kept in zip(demand.wants, demand.kept, strict=True)]

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
        here, more = list(bits(taken)), list(bits(available))
        width = len(here) + 2 * len(more)
        self.demand.work.spend(1 + width // 4 + len(self._offered) * (4 + width) // 8)
        for units, offered in self._offered:
            missing = units - sum([offered[position] for position in here])
            if missing > 0 and sum(sorted([offered[position] for position in more])[-slots:]) < missing:
                return False
        return not self._refused or self._all_possible(taken | available)

    def _all_possible(self, cells: int) -> bool:
        """Whether the requests could have their devices, for a guest on all these cells."""
        if cells not in self._known:
            self._known[cells] = possible(self.demand, self.tiers(cells))
        return self._known[cells]

    def _bound(self, want: Want) -> tuple[int, list[int]]:
        """How many units a request must have from the cells, and how many each cell offers it."""
        catalog, stock, work = self.demand.catalog, self.demand.stock, self.demand.work
        work.spend(1 + len(self.cells) // 4)
        unplaced = want.allowed & catalog.by_cell.get(None, 0) if want.affinity == "legacy" else 0
        near = [stock.count(want.allowed & here) for here in self._near]
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


def _on_sockets(cells: Sequence[HostCell], near: Sequence[int]) -> list[int]:
    """For each cell the offers near its socket; near itself where some cell's socket is not known."""
    if any(cell.socket is None for cell in cells):
        return list(near)
    sockets: dict[int | None, int] = {}
    for cell, offers in zip(cells, near, strict=True):
        sockets[cell.socket] = sockets.get(cell.socket, 0) | offers
    return [sockets[cell.socket] for cell in cells]


def _affine(catalog: Catalog, near: int, on_socket: int, affinity: Affinity) -> Tiers:
    """Where a request may take its devices from, for a guest with these offers near its cells and on their sockets."""
    if affinity == "required":
        return ((near,),)
    if affinity == "socket":
        return ((near,), (on_socket,))
    unplaced = near | catalog.by_cell.get(None, 0)
    if affinity == "legacy":
        return ((near,), (unplaced,))
    return ((near,), (unplaced,), (unplaced, catalog.everything & ~unplaced))
