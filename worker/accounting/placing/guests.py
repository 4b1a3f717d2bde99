"""What a request's topology means: the guest's cells and what each of them needs.

A request that contradicts itself is refused here, whatever the host.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from schemas.cpuset import lowest_cpu, parse_cpu_mask
from worker.accounting.host.cpus import bits_of
from worker.accounting.reasons.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from schemas.outcomes import Reason
    from schemas.requests import (
        CachePolicy,
        CpuPolicy,
        DeviceRequest,
        EmulatorThreads,
        PageSize,
        Resources,
        ThreadPolicy,
        Topology,
    )


class Need(NamedTuple):
    """How much a guest cell needs: cells with equal needs are alike to every host cell."""

    shared: int
    dedicated: int
    emulator: int
    memory_mib: int


@dataclass(frozen=True, slots=True)
class GuestCell:
    """One cell of a guest: its vCPUs as masks, and what it needs."""

    shared_mask: int
    dedicated_mask: int
    need: Need

    @property
    def shared(self) -> Sequence[int]:
        """The shared vCPUs by number, ascending."""
        return bits_of(self.shared_mask)

    @property
    def dedicated(self) -> Sequence[int]:
        """The dedicated vCPUs by number, ascending."""
        return bits_of(self.dedicated_mask)


@dataclass(frozen=True, slots=True)
class Guest:
    """A guest whose CPUs and memory are to lie on cells of the host.

    ``explicit`` tells a guest that asks for cells or pages by themselves from
    one that has a cell only because it asks for dedicated CPUs.
    """

    cells: tuple[GuestCell, ...]
    policy: CpuPolicy
    thread_policy: ThreadPolicy | None
    cache: CachePolicy | None
    emulator_threads: EmulatorThreads | None
    page_size: PageSize | None
    physnets: frozenset[str]
    tunneled: bool
    explicit: bool

    @property
    def vcpus(self) -> int:
        """Shared vCPUs, over all cells."""
        return sum(cell.need.shared for cell in self.cells)

    @property
    def pcpus(self) -> int:
        """Host CPUs wanted for this guest alone, those of its emulator threads included."""
        return sum(cell.need.dedicated + cell.need.emulator for cell in self.cells)


def guest_of(resources: Resources, topology: Topology) -> Guest | list[Reason] | None:
    """The guest's cells; what contradicts itself; or None where the guest may lie anywhere."""
    errors = [
        refusal("invalid_request", detail, resource=field) for field, detail in _contradictions(resources, topology)
    ]
    if errors:
        return errors
    policy = topology.cpu_policy
    explicit = topology.cells is not None or topology.page_size is not None
    if not explicit and policy == "shared":
        return None
    dedicated = _dedicated(resources, topology)
    emulator = 1 if topology.emulator_threads == "isolate" else 0
    cells = tuple(
        _guest_cell(vcpus, memory_mib, dedicated, 0 if number else emulator)
        for number, (vcpus, memory_mib) in enumerate(_layout(resources, topology))
    )
    if policy != "shared" and (error := _cell_without_pins(cells, topology)):
        return [refusal("invalid_request", error, resource="topology.cells")]
    networks = topology.networks
    return Guest(
        cells=cells,
        policy=policy,
        thread_policy=topology.thread_policy,
        cache=topology.cache,
        emulator_threads=topology.emulator_threads,
        page_size=topology.page_size,
        physnets=frozenset(networks.physnets) if networks else frozenset(),
        tunneled=networks.tunneled if networks else False,
        explicit=explicit,
    )


def _all_of(vcpus: int) -> int:
    """The mask of so many vCPUs."""
    return (1 << vcpus) - 1


def _dedicated(resources: Resources, topology: Topology) -> int:
    if topology.cpu_policy == "dedicated":
        return _all_of(resources.vcpus)
    if topology.cpu_policy == "mixed":
        return parse_cpu_mask(topology.dedicated_vcpus or topology.realtime_vcpus or "")
    return 0


def _layout(resources: Resources, topology: Topology) -> Iterator[tuple[int, int]]:
    """The mask of the vCPUs, and the memory, of each cell."""
    if isinstance(topology.cells, list):
        for cell in topology.cells:
            yield parse_cpu_mask(cell.vcpus), cell.memory_mib
        return
    count = topology.cells or 1
    width = resources.vcpus // count
    for number in range(count):
        yield _all_of(width) << number * width, resources.memory_mib // count


def _guest_cell(vcpus: int, memory_mib: int, dedicated: int, emulator: int) -> GuestCell:
    alone, shared = vcpus & dedicated, vcpus & ~dedicated
    return GuestCell(shared, alone, Need(shared.bit_count(), alone.bit_count(), emulator, memory_mib))


def _cell_without_pins(cells: tuple[GuestCell, ...], topology: Topology) -> str | None:
    """Why cells without a dedicated vCPU cannot be, where something relies on there being one."""
    if topology.emulator_threads == "isolate" and not cells[0].dedicated_mask:
        return "emulator_threads isolate needs a dedicated vCPU in the first cell"
    if topology.thread_policy == "isolate" and not all(cell.dedicated_mask for cell in cells):
        return "thread_policy isolate needs a dedicated vCPU in every cell"
    return None


def _contradictions(resources: Resources, topology: Topology) -> Iterator[tuple[str, str]]:
    """Each field that cannot be as it is, and why."""
    yield from _policy_contradictions(resources, topology)
    if topology.realtime_vcpus is not None and topology.cpu_policy != "shared":
        yield from _realtime_contradictions(resources, topology, topology.realtime_vcpus)
    if topology.locked_memory and topology.page_size is None:
        yield "topology.locked_memory", "locked_memory needs a page_size"
    if isinstance(topology.cells, int):
        for name, amount in (("vcpus", resources.vcpus), ("memory_mib", resources.memory_mib)):
            if amount % topology.cells:
                yield "topology.cells", f"{amount} {name} cannot be divided evenly over {topology.cells} cells"
    elif topology.cells is not None:
        yield from _layout_contradictions(resources, topology)


def _policy_contradictions(resources: Resources, topology: Topology) -> Iterator[tuple[str, str]]:
    policy = topology.cpu_policy
    if policy == "shared":
        if topology.thread_policy is not None:
            yield "topology.thread_policy", "a thread_policy needs dedicated vCPUs"
        if topology.cache is not None:
            yield "topology.cache", "cache needs dedicated vCPUs"
        if topology.emulator_threads == "isolate":
            yield "topology.emulator_threads", "emulator_threads isolate needs dedicated vCPUs"
        if topology.realtime_vcpus is not None:
            yield "topology.realtime_vcpus", "realtime_vcpus need dedicated vCPUs"
    if topology.dedicated_vcpus is not None:
        yield from _mask_contradictions(resources, topology, topology.dedicated_vcpus)
    elif policy == "mixed" and topology.realtime_vcpus is None:
        yield "topology.dedicated_vcpus", "cpu_policy mixed needs dedicated_vcpus or realtime_vcpus"


def _mask_contradictions(resources: Resources, topology: Topology, text: str) -> Iterator[tuple[str, str]]:
    field = "topology.dedicated_vcpus"
    if topology.cpu_policy != "mixed":
        yield field, f"dedicated_vcpus need cpu_policy mixed, not {topology.cpu_policy}"
        return
    if topology.realtime_vcpus is not None:
        yield field, "give either dedicated_vcpus or realtime_vcpus: realtime ones are dedicated"
    dedicated = parse_cpu_mask(text)
    everything = _all_of(resources.vcpus)
    if dedicated & ~everything:
        yield field, f"vCPU {dedicated.bit_length() - 1} is not one of {resources.vcpus} vCPUs"
    elif not dedicated or dedicated == everything:
        yield field, "dedicated_vcpus must leave at least one dedicated and one shared vCPU"


def _realtime_contradictions(resources: Resources, topology: Topology, text: str) -> Iterator[tuple[str, str]]:
    realtime = parse_cpu_mask(text)
    everything = _all_of(resources.vcpus)
    if not realtime:
        yield "topology.realtime_vcpus", "realtime_vcpus is empty"
    elif realtime & ~everything:
        yield "topology.realtime_vcpus", f"vCPU {realtime.bit_length() - 1} is not one of {resources.vcpus} vCPUs"
    elif realtime == everything and topology.emulator_threads is None:
        yield "topology.realtime_vcpus", "with every vCPU realtime, emulator_threads must say where the emulator runs"


def _layout_contradictions(resources: Resources, topology: Topology) -> Iterator[tuple[str, str]]:
    seen = memory_mib = 0
    for number, (vcpus, cell_memory_mib) in enumerate(_layout(resources, topology)):
        field = f"topology.cells.{number}.vcpus"
        memory_mib += cell_memory_mib
        if twice := seen & vcpus:
            yield field, f"vCPU {lowest_cpu(twice)} is in two cells"
        if vcpus.bit_length() > resources.vcpus:
            yield field, f"vCPU {vcpus.bit_length() - 1} is not one of {resources.vcpus} vCPUs"
        seen |= vcpus
    if missing := _all_of(resources.vcpus) & ~seen:
        yield "topology.cells", f"vCPU {lowest_cpu(missing)} is in no cell"
    if memory_mib != resources.memory_mib:
        yield "topology.cells", f"the cells have {memory_mib} MiB together, not {resources.memory_mib}"


def device_contradictions(requests: Sequence[DeviceRequest]) -> list[Reason]:
    """A reason for each device request that no device could fulfil whatever there is."""
    return [
        refusal(
            "invalid_request",
            f"mdev_type needs type mdev, not {request.type}",
            resource=f"devices.{number}.match.{place}.mdev_type",
        )
        for number, request in enumerate(requests)
        for place, match in enumerate(request.match)
        if match.mdev_type is not None and request.type not in {None, "mdev"}
    ]
