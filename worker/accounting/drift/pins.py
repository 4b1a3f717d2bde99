"""Which host CPUs a claimed guest's threads run on, held against those it was given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from schemas.cpuset import format_cpu_set, parse_cpu_set
from worker.accounting.drift.found import Drift
from worker.accounting.host.cpus import bits_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker.accounting.host.compiled import Host
    from worker.accounting.state.domains import Domain
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.occupancy import Placement
    from worker.accounting.state.view import Node

Cpus = frozenset[int]


@dataclass(slots=True)
class Due:
    """Where a guest's threads are to run.

    ``exact`` gives the CPU of each dedicated vCPU, ``within`` the CPUs of each
    shared one that lies on a cell; ``floating`` are those of all others, ``None`` for
    anywhere. ``emulator`` are CPUs for the emulator, and ``alone`` tells that it has
    them for itself.
    """

    floating: Cpus | None
    own: Cpus
    exact: dict[int, int] = field(default_factory=dict)
    within: dict[int, Cpus] = field(default_factory=dict)
    emulator: Cpus = frozenset()

    @property
    def alone(self) -> bool:
        """Whether the emulator has CPUs for itself."""
        return bool(self.emulator) and self.emulator <= self.own

    def helpers(self) -> Cpus | None:
        """The CPUs on which the emulator and the I/O threads may be: with others, or on the guest's own."""
        if self.floating is None:
            return None
        return self.floating.union(self.own, self.emulator, *self.within.values())


def due_of(placement: Placement, host: Host) -> Due:
    """Where a guest may run as its assignment says, and on what is shared by now."""
    given: Any = placement.assignment
    floating = given.get("shared_cpus")
    due = Due(None if floating is None else parse_cpu_set(floating) | host.shared, placement.pins)
    shared_now = {cell.id: frozenset(bits_of(cell.shared)) for cell in host.cells}
    for cell in given["cells"]:
        due.exact |= {int(vcpu): cpu for vcpu, cpu in cell["pins"].items()}
        shared = parse_cpu_set(cell.get("shared_cpus") or "") | shared_now.get(cell["host_cell"], frozenset())
        due.within |= dict.fromkeys(parse_cpu_set(cell["shared_vcpus"]), shared)
        due.emulator |= parse_cpu_set(cell["emulator_cpus"])
    return due


def pins_drift(node: Node, holder: Instance, held: Holding, domain: Domain) -> Iterator[Drift]:
    """Tell of threads that run elsewhere than they are to, all of a guest in one."""
    if node.host is None or node.inventory is None:
        return
    due = due_of(held.placement, node.host)
    others = frozenset(cpu for cpu, owner in node.occupancy.pinned.items() if owner != holder.id)
    anywhere = parse_cpu_set(node.inventory.cpus)
    found = dict(_strays(due, domain, others, anywhere))
    if found:
        ours = {thread: _text(cpus) for thread, (cpus, _) in found.items()}
        theirs = {thread: _text(cpus) for thread, (_, cpus) in found.items()}
        told = "; ".join(
            f"{_named(thread)} {'is' if thread != 'io' else 'are'} on CPUs {theirs[thread] or 'anywhere'}"
            f" and not on {ours[thread] or 'those that nobody has alone'}"
            for thread in found
        )
        yield Drift(node.name, "pins", holder.id, told, ours, theirs)


def _strays(due: Due, domain: Domain, others: Cpus, anywhere: Cpus) -> Iterator[tuple[str, tuple[Cpus | None, Any]]]:
    for vcpu, cpu in sorted(due.exact.items()):
        actual = domain.vcpu_cpus.get(vcpu)
        if vcpu < domain.vcpus and actual != frozenset({cpu}):
            yield str(vcpu), (frozenset({cpu}), actual)
    for vcpu, cpus in sorted(domain.vcpu_cpus.items()):
        allowed = due.within.get(vcpu, due.floating)
        if vcpu not in due.exact and _outside(cpus, allowed, others, anywhere):
            yield str(vcpu), (allowed, cpus)
    emulator, helpers = domain.emulator_cpus, due.helpers()
    if due.alone:
        if emulator is None or not emulator <= due.emulator:
            yield "emulator", (due.emulator, emulator)
    elif _outside(emulator, helpers, others, anywhere):
        yield "emulator", (helpers, emulator)
    if _outside(domain.io_cpus, helpers, others, anywhere):
        yield "io", (helpers, domain.io_cpus)


def _outside(cpus: Cpus | None, allowed: Cpus | None, others: Cpus, anywhere: Cpus) -> bool:
    """Whether threads are confined to CPUs that are not theirs; what may run on all of the host's is not confined."""
    if cpus is None or cpus >= anywhere:
        return False
    return not cpus <= allowed if allowed is not None else not cpus.isdisjoint(others)


def _named(thread: str) -> str:
    return {"emulator": "the emulator", "io": "I/O threads"}.get(thread, f"vCPU {thread}")


def _text(cpus: Cpus | None) -> str | None:
    return None if cpus is None else format_cpu_set(cpus)
