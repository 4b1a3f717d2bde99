"""Reading one host: few round trips, and nothing read or parsed twice that has not changed."""

from __future__ import annotations

from collections import OrderedDict
from hashlib import blake2b
from threading import Lock
from time import monotonic
from typing import TYPE_CHECKING, Final

from worker.hypervisor.capabilities import HostCapabilities, feature_names, parse_capabilities
from worker.hypervisor.devices import NodeDevice, parse_node_device
from worker.hypervisor.documents import Oddities, document
from worker.hypervisor.domains import with_devices
from worker.hypervisor.encryption import Encryption, parse_encryption
from worker.hypervisor.inventory import Inventories, Observation
from worker.hypervisor.listing import DomainLister
from worker.hypervisor.storage import StoragePool, local_disk_gib, parse_pool

if TYPE_CHECKING:
    from uuid import UUID

    from schemas.inventory import Inventory
    from worker.accounting.state.domains import Domain
    from worker.hypervisor.connection import Connection, NodeDeviceHandle

_REREAD_DEVICES_SECONDS: Final = 600.0
_REMEMBERED: Final = 256


class Shared:
    """What hosts alike have in common: parsed capabilities by digest, and inventories. Safe to use from threads."""

    def __init__(self) -> None:
        self.inventories = Inventories()
        self._capabilities: OrderedDict[bytes, HostCapabilities] = OrderedDict()
        self._lock = Lock()

    def capabilities(self, digest: bytes, text: str) -> HostCapabilities:
        """Return the parsed document, the same object for the same digest.

        Raises:
            XmlFault: as :func:`parse_capabilities`; nothing is remembered.
        """
        with self._lock:
            known = self._capabilities.get(digest)
            if known is not None:
                self._capabilities.move_to_end(digest)
                return known
        made = parse_capabilities(text)
        with self._lock:
            self._capabilities[digest] = made
            if len(self._capabilities) > _REMEMBERED:
                self._capabilities.popitem(last=False)
        return made


class HostReader:
    """Reads one host again and again; used by one thread at a time."""

    __slots__ = (
        "_capabilities",
        "_devices",
        "_devices_read_at",
        "_digest",
        "_disk",
        "_encryption",
        "_features",
        "_inventory",
        "_lister",
        "_observation",
        "_oddities",
        "_shared",
    )

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._digest = b""
        self._capabilities: HostCapabilities | None = None
        self._features: frozenset[str] = frozenset()
        self._encryption = Encryption()
        self._devices: dict[str, NodeDevice] = {}
        self._devices_read_at = 0.0
        self._disk = (0, 0)
        self._oddities: dict[str, tuple[str, ...]] = {}
        self._observation: Observation | None = None
        self._inventory: Inventory | None = None
        self._lister = DomainLister()

    @property
    def host_uuid(self) -> UUID | None:
        """The UUID of the machine that was read last, where it tells one."""
        return None if self._capabilities is None else self._capabilities.uuid

    def read(self, connection: Connection) -> Inventory:
        """Read the host; the same object again as long as nothing changed.

        Raises:
            CallFailed: libvirt answered with an error.
            XmlFault: it answered with something that cannot be used.
        """
        capabilities = self._read_capabilities(connection)
        memory_mib, cpu_count = connection.memory_and_cpus()
        online = connection.online_cpus()
        devices, disk_gib = self._read_devices(connection), self._read_disk(connection)
        observation = Observation(
            capabilities=capabilities,
            memory_mib=memory_mib,
            cpu_count=cpu_count,
            online=online,
            features=self._features,
            encryption=self._encryption,
            devices=devices,
            disk_gib=disk_gib,
            oddities=tuple(oddity for name in sorted(self._oddities) for oddity in self._oddities[name]),
        )
        if self._inventory is None or observation != self._observation:
            self._inventory = self._shared.inventories.of(observation)
            self._observation = observation
        return self._inventory

    def domains(self, connection: Connection) -> list[Domain]:
        """Read every domain; the host's devices too, where a domain names one by something else than its address.

        Raises:
            CallFailed: libvirt answered with an error.
        """
        described = self._lister.read(connection)
        named = any(one.mdevs or one.vdpas for one in described)
        return with_devices(described, self._read_devices(connection) if named else ())

    def _read_capabilities(self, connection: Connection) -> HostCapabilities:
        text = connection.capabilities()
        digest = blake2b(text.encode(errors="replace"), digest_size=16).digest()
        if self._capabilities is None or digest != self._digest:
            capabilities = self._shared.capabilities(digest, text)
            expanded = connection.expanded_cpu(capabilities.cpu_xml) if capabilities.cpu_xml else None
            domains = connection.domain_capabilities()
            oddities = Oddities()
            self._features, self._encryption = frozenset(), Encryption()
            with oddities.alone():
                self._features = _expanded(expanded) if expanded else frozenset()
            with oddities.alone():
                self._encryption = parse_encryption(domains) if domains else Encryption()
            self._oddities["cpu"] = oddities.told
            self._capabilities, self._digest = capabilities, digest
        return self._capabilities

    def _read_devices(self, connection: Connection) -> tuple[NodeDevice, ...]:
        """Read the devices: all of them if any came or went, else only those whose free instances change."""
        handles = connection.node_devices()
        now = monotonic()
        changed = self._devices.keys() != {handle.name for handle in handles}
        known = {} if changed or now - self._devices_read_at > _REREAD_DEVICES_SECONDS else self._devices
        devices: dict[str, NodeDevice] = {}
        for handle in handles:
            device = known.get(handle.name)
            if device is None or device.mdev_types:
                device = _device(handle)
            if device is not None:
                devices[handle.name] = device
        if known is not self._devices:
            self._devices_read_at = now
        self._devices = devices
        return tuple(devices[name] for name in sorted(devices))

    def _read_disk(self, connection: Connection) -> int:
        texts = connection.storage_pools()
        fingerprint = hash(tuple(texts))
        if fingerprint != self._disk[0]:
            oddities = Oddities()
            pools: list[StoragePool] = []
            for text in texts:
                with oddities.alone():
                    pools.append(parse_pool(text))
            self._disk = (fingerprint, local_disk_gib(pools, oddities))
            self._oddities["disk"] = oddities.told
        return self._disk[1]


def _expanded(text: str) -> frozenset[str]:
    """The features of a CPU model with all that it stands for."""
    with document(text, root="cpu") as cpu:
        return feature_names(cpu)


def _device(handle: NodeDeviceHandle) -> NodeDevice | None:
    """Read a device; ``None`` if it is gone. One that cannot be read is none that could be handed out."""
    oddities = Oddities()
    with oddities.alone(handle.name[:64]):
        text = handle.description()
        return None if text is None else parse_node_device(text)
    return NodeDevice(handle.name, None, "other", oddities=oddities.told)
