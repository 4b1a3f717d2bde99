"""Placing several instances on one node at once.

One after the other, each where it would lie alone, may leave no room for the
last though there is a way for all. Here every way is looked at: a member's cells
on each host cell, in pages of each size it accepts, the devices of all chosen
together. States that differ in nothing that matters are looked at once. Members
that need whole cores come first, which leaves their other threads to the rest.
On cores of at most two threads the answer is exact; on wider ones it is for the
threads that :func:`~worker.accounting.host.cpus.pack` takes of each core.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple
from uuid import UUID

from worker.accounting.host.cells import rooms_of
from worker.accounting.host.compiled import without_pinned
from worker.accounting.host.modes import union
from worker.accounting.host.pages import candidates, resettled
from worker.accounting.placing.fitting import fitting
from worker.accounting.placing.guests import guest_of
from worker.accounting.placing.keeping import NOTHING, licence_of
from worker.accounting.placing.layout import Layout, in_order, laid
from worker.accounting.placing.matching import choose, everywhere
from worker.accounting.placing.nearby import Nearby
from worker.accounting.placing.place import (
    amounts_of,
    chooses_pages,
    demand_of,
    fits,
    length_of,
    placement_of,
    with_small_memory,
)
from worker.accounting.state.occupancy import Placement, beside

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from worker.accounting.host.cells import Room
    from worker.accounting.host.compiled import Host
    from worker.accounting.placing.demand import Demand
    from worker.accounting.placing.flow import Choice
    from worker.accounting.placing.guests import Guest, Need
    from worker.accounting.placing.matching import Tiers
    from worker.accounting.placing.place import Request
    from worker.accounting.state.occupancy import Counters, Occupancy
    from worker.accounting.work import Work

_SOMEBODY = UUID(int=0)
_FREE = licence_of({}, NOTHING)


_Option = tuple[int, int]
"""The position of a host cell, and the size in KiB of the pages there."""


class _Member(NamedTuple):
    """One of the instances: its place among the requests, what it asks for, and its wants among those of all."""

    number: int
    shape: Request
    guest: Guest | None
    charge: Counters
    wants: slice


class _Way(NamedTuple):
    """One way to lay a member: its layout without devices, and where its requests may take those from."""

    layout: Layout
    tiers: list[Tiers]


def place_together(
    host: Host, occupancy: Occupancy, shapes: Sequence[Request], work: Work
) -> dict[int, Placement] | None:
    """Room for all of the requests, by their place among them; None if there is none, in whatever order.

    Each of them has a node that it fits on alone, and contradicts nothing.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    host = without_pinned(host, occupancy.pinned)
    wanted = [request for shape in shapes for request in shape.devices]
    demand = demand_of(host, occupancy, wanted, NOTHING, work)
    members: list[_Member] = []
    first = 0
    for number, shape in enumerate(shapes):
        work.spend(4 + length_of(shape))
        guest = None if shape.topology is None else guest_of(shape.resources, shape.topology)
        if isinstance(guest, list):
            return None
        wants = slice(first, first := first + len(shape.devices))
        members.append(_Member(number, shape, guest, amounts_of(host, shape.resources, guest), wants))
    if not _enough(host, occupancy, members):
        return None
    search = _Together(host, sorted(members, key=_hardest_first), demand)
    return search.placements() if search.extend(occupancy, []) else None


def _enough(host: Host, occupancy: Occupancy, members: Sequence[_Member]) -> bool:
    """Whether there is enough of the plain amounts that are the same wherever the members lie."""
    sums: Counters = {}
    for member in members:
        for name, amount in member.charge.items():
            sums[name] = sums.get(name, 0) + amount
    return all(occupancy.used.get(name, 0) + amount <= host.ceiling.get(name, 0) for name, amount in sums.items())


def _hardest_first(member: _Member) -> tuple[object, ...]:
    """Those with the fewest ways first: whole cores, pages of one size, many cells, many CPUs, much memory."""
    guest = member.guest
    if guest is None:
        return True, False, 0, 0, 0, 0
    sizes = {"any": 2, "large": 1}.get(str(guest.page_size), 0)
    return (
        False,
        guest.thread_policy != "require",
        sizes,
        -len(guest.cells),
        -max(cell.need.dedicated + cell.need.emulator for cell in guest.cells),
        -max(cell.need.memory_mib for cell in guest.cells),
    )


class _Together:
    def __init__(self, host: Host, members: Sequence[_Member], demand: Demand) -> None:
        self.host = host
        self.members = members
        self.demand = demand
        self.work = demand.work
        self.failed: set[object] = set()
        self.ways: list[_Way] = []
        self.charges: list[Counters] = []
        self.choice: Choice = []
        self._wants = [want for member in members for want in demand.wants[member.wants]]
        self._apart = bool(demand.wants) or any(one.guest is not None and _networked(one.guest) for one in members)
        self._cores = any(one.guest is not None and one.guest.thread_policy == "require" for one in members)
        # Which CPUs are free, and not only how many of a core, says what is free of a cache.
        self._cpus = any(one.guest is not None and one.guest.cache is not None for one in members)

    def placements(self) -> dict[int, Placement]:
        """What was found, once all members have a place."""
        found: dict[int, Placement] = {}
        first = 0
        for member, way, charge in zip(self.members, self.ways, self.charges, strict=True):
            count = len(member.shape.devices)
            layout = way.layout._replace(choice=self.choice[first : first + count])
            found[member.number] = placement_of(self.host, charge, layout, member.shape.devices)
            first += count
        return found

    def extend(self, occupancy: Occupancy, tiers: list[Tiers]) -> bool:
        """Find a place for the members that have none yet, beside those that have; on failure change nothing."""
        if len(self.ways) == len(self.members):
            return True
        state = self._state(occupancy, tiers)
        if state in self.failed:
            return False
        member = self.members[len(self.ways)]
        for way in self._ways_of(member, occupancy):
            charge = member.charge
            if member.guest is not None and chooses_pages(member.guest):
                charge = with_small_memory(self.host, charge, way.layout)
            both = [*tiers, *way.tiers]
            if not fits(self.host, occupancy.used, charge, {}) or not self._served(both, more=len(way.tiers)):
                continue
            self.ways.append(way)
            self.charges.append(charge)
            taken = Placement({**charge, **way.layout.charge}, way.layout.pins)
            if self.extend(beside(occupancy, _SOMEBODY, taken), both):
                return True
            self.ways.pop()
            self.charges.pop()
        self.failed.add(state)
        return False

    def _served(self, tiers: list[Tiers], *, more: int) -> bool:
        """Whether all members so far can have their devices; keeps which, for the last that was asked."""
        if not more:
            return True
        count = len(tiers)
        choice = choose(self.demand._replace(wants=self._wants[:count], kept=[0] * count), tiers)
        self.choice = choice or []
        return choice is not None

    def _ways_of(self, member: _Member, occupancy: Occupancy) -> Iterator[_Way]:
        count = len(member.shape.devices)
        wants = self.demand.wants[member.wants]
        alone = self.demand._replace(wants=wants, kept=[0] * count)
        guest = member.guest
        if guest is None:
            yield _Way(Layout({}, frozenset(), [], []), everywhere(alone))
            return
        cells = self.host.cells or (() if guest.explicit else (self.host.implicit,))
        self.work.spend(2 + len(cells) + len(occupancy.pinned) // 8 + len(occupancy.used) // 8)
        rooms = in_order(rooms_of(cells, occupancy.used, occupancy.pinned), guest, self.host, alone)
        options = self._options(guest, rooms, resettled([cell.pages for cell in cells], occupancy.used))
        nearby = Nearby([room.cell for room in rooms], guest, alone)
        for arranged in _arrangements([options[cell.need] for cell in guest.cells], self.work):
            positions, sizes = [position for position, _ in arranged], [size for _, size in arranged]
            mask = sum([1 << position for position in positions])
            if all(network & mask for network in nearby.networks):
                self.work.spend(4 + 4 * len(positions) + guest.pcpus // 8)
                yield _Way(laid(guest, rooms, positions, sizes, self.host), nearby.tiers(mask) if wants else [])

    def _options(self, guest: Guest, rooms: Sequence[Room], used: Mapping[str, int]) -> dict[Need, list[_Option]]:
        """For each need, the positions of the rooms where it fits, with each size of pages that it may have there."""
        found: dict[Need, list[_Option]] = {}
        for need in {cell.need: None for cell in guest.cells}:
            found[need] = []
            for position, room in enumerate(rooms):
                for some in _sized(guest, room):
                    self.work.spend(1 + (len(room.cores) // 8 if guest.thread_policy else 0))
                    size = fitting(room, some, need, used, _FREE, pinned=False)
                    if isinstance(size, int):
                        found[need].append((position, size))
        return found

    def _state(self, occupancy: Occupancy, tiers: list[Tiers]) -> object:
        """What matters of a state for the members that have no place yet."""
        cells = self.host.cells or (self.host.implicit,)
        self.work.spend(1 + len(cells) + len(occupancy.pinned) // 8)
        rooms = [self._what_is_left(room, occupancy) for room in rooms_of(cells, occupancy.used, occupancy.pinned)]
        limits = tuple([union(steps[-1]) for steps in tiers])
        left = tuple(rooms) if self._apart else tuple(sorted(rooms))
        return len(self.ways), occupancy.used.get("memory_mib", 0), left, limits

    def _what_is_left(self, room: Room, occupancy: Occupancy) -> tuple[object, ...]:
        cell = room.cell
        free = tuple(sorted([(core & room.free).bit_count() for core in room.cores])) if self._cores else ()
        if self._cpus:
            free = (room.free,)
        return (
            cell.shared.bit_count(),
            cell.isolating,
            cell.memory_mib,
            cell.overcommitted_mib,
            room.vcpus,
            room.memory_mib,
            room.free.bit_count(),
            free,
            tuple([(*some[:3], occupancy.used.get(some.counter, 0)) for some in cell.pages]),
        )


def _networked(guest: Guest) -> bool:
    return bool(guest.physnets) or guest.tunneled


def _sized(guest: Guest, room: Room) -> Iterator[Guest]:
    """The guest with each size of pages that it accepts and the cell has."""
    if not chooses_pages(guest):
        yield guest
        return
    for some in candidates(room.cell.pages, guest.page_size or "small"):
        yield replace(guest, page_size=some.size_kib)


def _arrangements(options: Sequence[Sequence[_Option]], work: Work) -> Iterator[list[_Option]]:
    """Every way to give each guest cell one of its options, no position twice, of cells that are alike in one order."""

    def extended(chosen: list[_Option], taken: int) -> Iterator[list[_Option]]:
        number = len(chosen)
        if number == len(options):
            yield list(chosen)
            return
        floor = chosen[-1][0] if number and options[number] is options[number - 1] else -1
        for option in options[number]:
            work.spend(1)
            if option[0] > floor and not taken >> option[0] & 1:
                yield from extended([*chosen, option], taken | 1 << option[0])

    yield from extended([], 0)
