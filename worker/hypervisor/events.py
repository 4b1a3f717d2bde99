"""What libvirt tells of a host by itself: that a domain started, stopped or changed, that a device came or went.

Only that something happened is passed on, and for which domain: what is so now is read anew.
Callbacks run in libvirt's thread and must return at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import libvirt

if TYPE_CHECKING:
    from collections.abc import Callable

_OF_DOMAINS: Final = (
    libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
    libvirt.VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
)


class Subscription:
    """The callbacks registered on one connection. ``heard`` is called in a thread of libvirt's."""

    def __init__(self, connection: Any, heard: Callable[[], None]) -> None:
        def on_event(*_: object) -> None:
            heard()

        self._connection = connection
        self._domains = [
            number
            for event in _OF_DOMAINS
            if (number := _number(connection.domainEventRegisterAny, None, event, on_event, None)) is not None
        ]
        device = libvirt.VIR_NODE_DEVICE_EVENT_ID_LIFECYCLE
        self._devices = _number(connection.nodeDeviceEventRegisterAny, None, device, on_event, None)
        _number(connection.registerCloseCallback, on_event, None)

    @property
    def alive(self) -> bool:
        """Whether the driver tells of domains at all."""
        return bool(self._domains)

    def end(self) -> None:
        """Hear no more; as long as a callback is registered, libvirt does not let go of its connection."""
        for number in self._domains:
            _number(self._connection.domainEventDeregisterAny, number)
        if self._devices is not None:
            _number(self._connection.nodeDeviceEventDeregisterAny, self._devices)
        _number(self._connection.unregisterCloseCallback)


def _number(function: Callable[..., Any], *arguments: object) -> int | None:
    """What libvirt answers; ``None`` where the driver cannot do it, or the connection is gone."""
    try:
        answer: int = function(*arguments)
    except libvirt.libvirtError:
        return None
    return answer
