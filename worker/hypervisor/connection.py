"""The one place that calls libvirt, which has no types of its own. Every method blocks: call them in a thread."""

from __future__ import annotations

from socket import create_connection
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import libvirt

from worker.errors import NodeledgerError
from worker.hypervisor.events import Subscription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from uuid import UUID

_LOST: Final = frozenset({
    libvirt.VIR_ERR_INTERNAL_ERROR,
    libvirt.VIR_ERR_NO_CONNECT,
    libvirt.VIR_ERR_INVALID_CONN,
    libvirt.VIR_ERR_SYSTEM_ERROR,
    libvirt.VIR_ERR_RPC,
})  # fmt: skip
_TRANSPORT: Final = frozenset({libvirt.VIR_FROM_REMOTE, libvirt.VIR_FROM_RPC, libvirt.VIR_FROM_STREAMS})
_GONE: Final = frozenset({
    libvirt.VIR_ERR_NO_DOMAIN,
    libvirt.VIR_ERR_NO_NODE_DEVICE,
    libvirt.VIR_ERR_NO_STORAGE_POOL,
})  # fmt: skip
_UNSUPPORTED: Final = frozenset({
    libvirt.VIR_ERR_NO_SUPPORT,
    libvirt.VIR_ERR_CONFIG_UNSUPPORTED,
    libvirt.VIR_ERR_OPERATION_UNSUPPORTED,
    libvirt.VIR_ERR_ARGUMENT_UNSUPPORTED,
    libvirt.VIR_ERR_INVALID_ARG,
    libvirt.VIR_ERR_NO_CONNECT,
})  # fmt: skip
_ASSIGNABLE: Final = (
    libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV_TYPES
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV
)
_KEEPALIVE_SECONDS: Final = 5
_KEEPALIVE_COUNT: Final = 3
_DETAIL_LENGTH: Final = 300
_PORTS: Final = {"tcp": 16_509, "tls": 16_514}


class CallFailed(NodeledgerError):  # noqa: N818 - what happened, as the port's own exceptions are named
    """libvirt answered with an error; the message is libvirt's, shortened and printable."""


class ConnectionLost(CallFailed):
    """The connection is dead, or was never made: only a new one can help."""


def reach(uri: str, *, timeout_seconds: float) -> None:
    """See whether anything listens where a remote address points, for at most a given time.

    Opening a connection to a host that is down takes libvirt two minutes; this
    comes first where a node has failed before. Other transports pass.

    Raises:
        ConnectionLost: nobody answers, or the connection is refused.
    """
    address = urlsplit(uri)
    port = _PORTS.get(address.scheme.partition("+")[2])
    if port is None or not address.hostname:
        return
    try:
        create_connection((address.hostname, address.port or port), timeout_seconds).close()
    except OSError as error:
        raise ConnectionLost(f"cannot connect to the hypervisor: {error.strerror or error}") from None


class NodeDeviceHandle:
    """A node device whose description has not been read yet."""

    def __init__(self, device: Any) -> None:
        self._device = device
        self.name: str = device.name()

    def description(self) -> str | None:
        """Return its XML; ``None`` if it is gone, nothing where libvirt cannot tell it."""
        return _description(self._device)


class Connection:
    """An open connection. Methods raise :class:`ConnectionLost` or :class:`CallFailed`.

    What a driver does not support comes back as ``None`` or as nothing.
    """

    def __init__(self, uri: str) -> None:
        prepare()
        try:
            self._connection = libvirt.open(uri)
        except libvirt.libvirtError as error:
            raise ConnectionLost(_detail(error)) from None
        # Local drivers have no keepalive; remote ones break a silent connection by themselves with it.
        _unless(None, self._connection.setKeepAlive, _KEEPALIVE_SECONDS, _KEEPALIVE_COUNT)
        self.driver: str = _call(self._connection.getType)
        self._subscription: Subscription | None = None

    def listen(self, heard: Callable[[], None]) -> bool:
        """Have it told, in a thread of libvirt's, when something happens there; says whether the driver does that."""
        if self._subscription is None:
            self._subscription = Subscription(self._connection, heard)
        return self._subscription.alive

    def close(self) -> None:
        """Close the connection, dead or alive."""
        if self._subscription is not None:
            self._subscription.end()
        try:
            self._connection.close()
        except libvirt.libvirtError:
            return  # it was dead

    def capabilities(self) -> str:
        """Return the capabilities document."""
        text: str = _call(self._connection.getCapabilities)
        return text

    def memory_and_cpus(self) -> tuple[int, int]:
        """Return the host's memory in MiB, and how many CPUs it has."""
        info = _call(self._connection.getInfo)
        return int(info[1]), int(info[2])

    def online_cpus(self) -> frozenset[int] | None:
        """Return the CPUs that are online; ``None`` where the driver cannot tell."""
        if self.driver == "TEST":
            return None  # it answers with the same eight CPUs whatever its host has
        found = _unless(_UNSUPPORTED, self._connection.getCPUMap, 0)
        return None if found is None else frozenset(cpu for cpu, online in enumerate(found[1]) if online)

    def cpu_time(self) -> dict[str, int] | None:
        """Return how long all CPUs were in each mode, in ns; ``None`` where the driver cannot tell."""
        found: dict[str, int] | None = _unless(None, self._connection.getCPUStats, libvirt.VIR_NODE_CPU_STATS_ALL_CPUS)
        return found

    def memory(self) -> dict[str, int] | None:
        """Return the host's memory by use, in KiB; ``None`` where the driver cannot tell."""
        every = libvirt.VIR_NODE_MEMORY_STATS_ALL_CELLS
        found: dict[str, int] | None = _unless(None, self._connection.getMemoryStats, every)
        return found

    def expanded_cpu(self, cpu_xml: str) -> str | None:
        """Return a host's ``<cpu>`` with the features its model implies spelled out."""
        flags = libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES
        return _text(_unless(None, self._connection.baselineCPU, [cpu_xml], flags))

    def domain_capabilities(self) -> str | None:
        """Return the domain capabilities document of the default emulator."""
        return _text(_unless(None, self._connection.getDomainCapabilities, None, None, None, None, 0))

    def node_devices(self) -> list[NodeDeviceHandle]:
        """Return the devices that might be handed out or tell of such."""
        flags = (
            _ASSIGNABLE | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_VDPA | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_ACTIVE,
            _ASSIGNABLE,
            libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV,
        )
        for choice in flags:  # older daemons refuse flags they do not know
            found = _unless(_UNSUPPORTED, self._connection.listAllDevices, choice)
            if found is not None:
                return [NodeDeviceHandle(device) for device in found]
        return []

    def storage_pools(self) -> list[str]:
        """Return the descriptions of the active storage pools."""
        flags = libvirt.VIR_CONNECT_LIST_STORAGE_POOLS_ACTIVE
        pools = _unless(_UNSUPPORTED, self._connection.listAllStoragePools, flags) or []
        return [text for text in map(_description, pools) if text is not None]

    def domain_is_active(self, uuid: UUID) -> bool | None:
        """Say whether a domain is active (paused and crashed ones are); ``None`` if there is none of this UUID."""
        domain = _unless(_GONE, self._connection.lookupByUUIDString, str(uuid))
        active = None if domain is None else _unless(_GONE, domain.isActive)
        return None if active is None else bool(active)

    def domains(self) -> Iterator[tuple[str, str, bool]]:
        """Yield every domain's UUID, its description and whether it is active; one that goes meanwhile is left out."""
        for domain in _call(self._connection.listAllDomains):
            text = _description(domain)
            if text is not None:
                # The listing told the number an active domain has: asking for it again costs no round trip.
                yield _call(domain.UUIDString), text, _call(domain.ID) >= 0


def _description(thing: Any) -> str | None:
    """The XML of a domain, device or pool; ``None`` if it is gone.

    Nothing where libvirt cannot tell it: one such thing must not hide the others.
    """
    try:
        return _text(_unless(_GONE, thing.XMLDesc, 0))
    except ConnectionLost:
        raise
    except CallFailed:
        return ""


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _call(function: Callable[[], Any]) -> Any:
    try:
        return function()
    except libvirt.libvirtError as error:
        raise _failure(error) from None


def _unless(tolerated: frozenset[int] | None, function: Callable[..., Any], *arguments: object) -> Any:
    """Call libvirt; ``None`` if it fails in a tolerated way (``None``: in any way that leaves the connection whole)."""
    try:
        return function(*arguments)
    except libvirt.libvirtError as error:
        failure = _failure(error)
        if isinstance(failure, ConnectionLost) or (tolerated is not None and error.get_error_code() not in tolerated):
            raise failure from None
        return None


def _failure(error: libvirt.libvirtError) -> CallFailed:
    lost = error.get_error_code() in _LOST and error.get_error_domain() in _TRANSPORT
    return (ConnectionLost if lost else CallFailed)(_detail(error))


def _detail(error: libvirt.libvirtError) -> str:
    text = error.get_error_message() or str(error)
    return "".join(letter if letter.isprintable() else " " for letter in text)[:_DETAIL_LENGTH]


_prepared = False
_preparing = Lock()


def prepare() -> None:
    """Give libvirt its event loop and take standard error from it; once a process, before the first connection.

    The loop has a thread of its own, so that keepalives do not depend on ours.
    """
    global _prepared  # noqa: PLW0603 - libvirt's own state is the process's
    with _preparing:
        if _prepared:
            return
        libvirt.registerErrorHandler(lambda _context, _error: None, None)
        libvirt.virEventRegisterDefaultImpl()
        Thread(target=_run_events, name="libvirt-events", daemon=True).start()
        _prepared = True


def _run_events() -> None:
    while True:
        libvirt.virEventRunDefaultImpl()
