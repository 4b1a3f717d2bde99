from __future__ import annotations

from typing import cast
from uuid import UUID

import libvirt
import pytest

from worker.hypervisor.connection import Connection, ConnectionLost
from worker.hypervisor.listing import DomainLister
from worker.hypervisor.observe import HostReader, Shared

TEST = "test:///default"


class Failing:
    """Something of which libvirt cannot tell the description, as it fails where the driver reads broken hardware."""

    def __init__(self, code: int, domain: int) -> None:
        self.fault = libvirt.libvirtError("")
        self.fault.err = (code, domain, "it broke", 2, None, None, None, 0, 0)

    def name(self) -> str:
        return "pci_broken"

    def UUIDString(self) -> str:  # noqa: N802 - libvirt's name
        return str(UUID(int=7))

    def ID(self) -> int:  # noqa: N802 - libvirt's name
        return 7

    def XMLDesc(self, _flags: int) -> str:  # noqa: N802 - libvirt's name
        raise self.fault


class Beside:
    """A real connection that lists something broken beside what is there."""

    def __init__(self, real: libvirt.virConnect, broken: Failing) -> None:
        self._real = real
        self._broken = broken

    def __getattr__(self, name: str) -> object:
        found = getattr(self._real, name)
        if name in {"listAllDomains", "listAllStoragePools", "listAllDevices"}:
            return lambda *arguments: [self._broken, *found(*arguments)]
        return found


def connected(broken: Failing) -> Connection:
    connection = Connection(TEST)
    connection._connection = cast("libvirt.virConnect", Beside(connection._connection, broken))
    return connection


def test_what_libvirt_cannot_describe_costs_itself_alone() -> None:
    sound = HostReader(Shared()).read(Connection(TEST))
    connection = connected(Failing(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_NODEDEV))
    made = HostReader(Shared()).read(connection)
    assert made == sound.model_copy(update={"oddities": made.oddities})
    assert made.oddities == ["<pool>: there is no description", "pci_broken: <device>: there is no description"]
    domains = {domain.uuid: domain.fault for domain in DomainLister().read(connection)}
    assert domains.pop(UUID(int=7)) == "<domain>: there is no description"
    assert list(domains.values()) == [None]


def test_a_connection_that_is_lost_meanwhile_is_no_oddity() -> None:
    broken = Failing(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
    with pytest.raises(ConnectionLost):
        HostReader(Shared()).read(connected(broken))


def test_what_libvirt_says_is_one_line_of_bounded_length_that_steers_no_terminal() -> None:
    broken = Failing(libvirt.VIR_ERR_INTERNAL_ERROR, libvirt.VIR_FROM_RPC)
    broken.fault.err = (*broken.fault.err[:2], "\x1b[2J\x9b31m\u202egnp\n" * 1000, *broken.fault.err[3:])
    with pytest.raises(ConnectionLost) as caught:
        HostReader(Shared()).read(connected(broken))
    said = str(caught.value)
    assert said.isprintable()
    assert "gnp" in said
    assert len(said) <= 1024
