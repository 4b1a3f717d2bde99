"""What devices a host offers, and which of them a request would take.

Everything that can be handed out is an *offer*: a device whole, or the mediated
devices of one type on a parent device. Offers are numbered in the order in which
they are chosen, and sets of offers are bit masks over those numbers: devices with
the fewest distinctions first, so that special ones are left for those who ask for
them; then by address.

A device excludes those above and below it: a physical function its virtual
functions and what lies on them, and the other way round. A parent carries
mediated devices of one type at a time, and is then not handed out whole; it
offers as many of the type as its inventory says it carries alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import filter as matching_names
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar, get_args

from schemas.requests import DeviceType
from worker.accounting.host.admission import admitted
from worker.accounting.host.modes import best_use, bits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from schemas.inventory import Device, Inventory
    from schemas.policy import Policy
    from schemas.requests import Affinity, DeviceMatch, DeviceRequest
    from worker.accounting.host.modes import Mode
    from worker.accounting.work import Work

_Key = TypeVar("_Key")
_GLOB = frozenset("*?[")
_VIRTUAL = frozenset({"pf", "vf", "vdpa"})

_PATTERN_STEPS: Final = 60
"""What it takes to compile a pattern of addresses, beside looking at the addresses."""


class Offer(NamedTuple):
    """A device that can be taken whole, or up to ``units`` mediated devices of ``mdev_type`` on it."""

    device: Device
    mdev_type: str | None
    units: int

    @property
    def counter(self) -> str:
        """The name under which mediated devices of this type on this parent are counted."""
        return mdev_counter(self.device.address, self.mdev_type or "")


class Want(NamedTuple):
    """One request: ``units`` out of the offers in the mask ``allowed``."""

    name: str
    units: int
    allowed: int
    affinity: Affinity
    request: DeviceRequest


class Stock(NamedTuple):
    """What is left at one decision: the mask of offers with units left, and how many where it is not one."""

    free: int
    units: Mapping[int, int]

    def count(self, mask: int) -> int:
        """Units left of the offers in ``mask``."""
        mask &= self.free
        if not self.units:
            return mask.bit_count()
        if mask.bit_count() < len(self.units):
            return sum(self.units.get(number, 1) for number in bits(mask))
        return mask.bit_count() + sum(left - 1 for number, left in self.units.items() if mask >> number & 1)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The offers of a host, and masks to find them by.

    ``excludes`` gives, for each offer, those that cannot be taken beside it.
    ``related`` gives, for each address in the inventory, the offers on the
    device itself, on those above it and on those below it: also for devices
    that are not handed out. ``on`` gives those on the device alone, and
    ``below`` the addresses directly below one; below None are those with
    nothing above them. ``apart`` is the best use of all: what excludes nothing,
    and the blocks of what excludes each other. ``addresses`` are in lower case.
    """

    offers: tuple[Offer, ...]
    everything: int
    whole: int
    excludes: tuple[int, ...]
    related: Mapping[str, int]
    on: Mapping[str, int]
    below: Mapping[str | None, Sequence[str]]
    by_cell: Mapping[int | None, int]
    by_property: Mapping[tuple[str, object], int]
    apart: Mode
    addresses: Sequence[str]

    def stock(self, held: Iterable[str], used: Mapping[str, int]) -> Stock:
        """What is left beside the devices ``held`` whole and the mediated devices in use."""
        blocked = 0
        for address in held:
            blocked |= self.related.get(address, 0)
        for counter, amount in used.items():
            if amount and counter.startswith("mdev/"):
                address, _, mdev_type = counter[5:].partition("/")
                kept = self.by_property.get(("mdev_type", mdev_type), 0) & self.on.get(address, 0)
                blocked |= self.related.get(address, 0) & ~kept
        free = self.everything & ~blocked
        units: dict[int, int] = {}
        for number in bits(free & ~self.whole):
            offer = self.offers[number]
            left = offer.units - used.get(offer.counter, 0)
            if left > 0:
                units[number] = left
            else:
                free &= ~(1 << number)
        return Stock(free, units)

    def want(self, request: DeviceRequest, work: Work) -> Want:
        """The offers that a request accepts, wherever they are.

        Raises:
            TooComplexError: finding out takes more work than is left.
        """
        allowed = self._allowed(request, request.type, work)
        return Want(request.name, request.count, allowed, request.affinity, request)

    def other_types(self, request: DeviceRequest, work: Work) -> list[str]:
        """The types under which a request would find offers that match it but for their type.

        Raises:
            TooComplexError: finding out takes more work than is left.
        """
        return [kind for kind in get_args(DeviceType) if kind != request.type and self._allowed(request, kind, work)]

    def _allowed(self, request: DeviceRequest, kind: str | None, work: Work) -> int:
        allowed = reduce(or_, (self._matching(match, kind, work) for match in request.match), 0)
        if request.live_migratable is not None:
            allowed &= self.by_property.get(("live_migratable", request.live_migratable), 0)
        return allowed

    def _matching(self, match: DeviceMatch, kind: str | None, work: Work) -> int:
        work.spend(1 + len(match.tags) // 4)
        if kind is None:
            kind = "plain" if match.mdev_type is None else "mdev"
        find = self.by_property.get
        allowed = find(("type", kind), 0)
        if match.vendor is not None:
            allowed &= find(("vendor", match.vendor.lower()), 0)
        if match.product is not None:
            allowed &= find(("product", match.product.lower()), 0)
        if match.mdev_type is not None:
            allowed &= find(("mdev_type", match.mdev_type), 0)
        allowed = reduce(and_, (find(("tag", tag), 0) for tag in match.tags.items()), allowed)
        if match.address is not None and allowed:
            allowed &= self._at(match.address, work)
        return allowed

    def _at(self, pattern: str, work: Work) -> int:
        if _GLOB.isdisjoint(pattern):
            return self.by_property.get(("address", pattern), 0)
        work.spend(_PATTERN_STEPS + len(self.addresses) // 8)
        found = matching_names(self.addresses, pattern)
        work.spend(len(found) // 4)
        return reduce(or_, (self.by_property["address", address] for address in found), 0)


def mdev_counter(address: str, mdev_type: str) -> str:
    """The name of the counter of mediated devices of a type on a parent device."""
    return f"mdev/{address}/{mdev_type}"


def build_catalog(inventory: Inventory, policy: Policy, *, observed: bool) -> Catalog:
    """Compile the devices that the policy lets be handed out.

    Without patterns, that is every device of a pushed inventory and none of an
    observed one.
    """
    ordered = sorted(admitted(inventory, policy, observed=observed), key=_preference(inventory.devices))
    offers = tuple(offer for device in ordered for offer in _offers(device))
    on = _masks((offer.device.address, number) for number, offer in enumerate(offers))
    family = _families(inventory.devices)
    related = {address: reduce(or_, (on.get(kin, 0) for kin in kindred), 0) for address, kindred in family.items()}
    excludes = tuple(related[offer.device.address] & ~(1 << number) for number, offer in enumerate(offers))
    return Catalog(
        offers=offers,
        everything=(1 << len(offers)) - 1,
        whole=reduce(or_, (1 << number for number, offer in enumerate(offers) if offer.mdev_type is None), 0),
        excludes=excludes,
        related=related,
        on=on,
        below=_below(inventory.devices),
        by_cell=_masks((offer.device.cell, number) for number, offer in enumerate(offers)),
        by_property=_masks((key, number) for number, offer in enumerate(offers) for key in _properties(offer)),
        apart=best_use((1 << len(offers)) - 1, excludes),
        addresses=tuple(dict.fromkeys(offer.device.address.lower() for offer in offers)),
    )


def _masks(numbered: Iterable[tuple[_Key, int]]) -> dict[_Key, int]:
    masks: dict[_Key, int] = {}
    for key, number in numbered:
        masks[key] = masks.get(key, 0) | 1 << number
    return masks


def _properties(offer: Offer) -> Iterator[tuple[str, object]]:
    device = offer.device
    yield "vendor", device.vendor.lower()
    yield "product", device.product.lower()
    yield "address", device.address
    yield "live_migratable", device.live_migratable
    for tag in device.tags.items():
        yield "tag", tag
    if offer.mdev_type is not None:
        yield "type", "mdev"
        yield "mdev_type", offer.mdev_type
        return
    yield "type", device.type
    if device.type in {"pci", "vf"}:
        yield "type", "plain"


def _offers(device: Device) -> Iterator[Offer]:
    if device.type != "mdev" or not device.mdev_types:
        yield Offer(device, None, 1)
    for mdev_type, units in sorted(device.mdev_types.items()):
        if units:
            yield Offer(device, mdev_type, units)


def _preference(devices: Sequence[Device]) -> Callable[[Device], tuple[int, str, str]]:
    """The order in which devices are chosen: fewest distinctions, then with their siblings, then by address."""
    first: dict[str, str] = {}
    for device in devices:
        pool = device.parent or device.address
        first[pool] = min(first.get(pool, device.address), device.address)

    def key(device: Device) -> tuple[int, str, str]:
        distinctions = len(device.tags) + (device.live_migratable is not None) + (device.type in _VIRTUAL)
        return distinctions, first[device.parent or device.address], device.address

    return key


def _below(devices: Sequence[Device]) -> dict[str | None, list[str]]:
    """The addresses directly below each; what names a parent that is not there lies below nothing."""
    known = {device.address for device in devices}
    below: dict[str | None, list[str]] = {}
    for device in devices:
        below.setdefault(device.parent if device.parent in known else None, []).append(device.address)
    return below


def _families(devices: Sequence[Device]) -> dict[str, set[str]]:
    """For each address that is a device's or a parent's: itself, all above it and all below it."""
    parents = {device.address: device.parent for device in devices}
    family: dict[str, set[str]] = {address: {address} for address in parents}
    for address, parent in parents.items():
        above = parent
        while above is not None and address not in family.setdefault(above, {above}):
            family[above].add(address)
            family[address].add(above)
            above = parents.get(above)
    return family
