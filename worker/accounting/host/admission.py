"""Which devices of an inventory a policy lets be handed out."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.inventory import Device, Inventory
    from schemas.policy import DevicePattern, Policy


def admitted(inventory: Inventory, policy: Policy, *, observed: bool) -> Iterator[Device]:
    """The devices that may be handed out, as the first pattern that admits each leaves them."""
    if policy.devices is None:
        yield from () if observed else inventory.devices
        return
    for device in inventory.devices:
        pattern = next((some for some in policy.devices if _admits(some, device)), None)
        if pattern is None:
            continue
        types = device.mdev_types
        if pattern.mdev_types is not None:
            types = {name: units for name, units in types.items() if name in pattern.mdev_types}
        live = device.live_migratable if pattern.live_migratable is None else pattern.live_migratable
        changes = {"tags": {**device.tags, **pattern.tags}, "live_migratable": live, "mdev_types": types}
        yield device.model_copy(update=changes)


def _admits(pattern: DevicePattern, device: Device) -> bool:
    """Whether a pattern names a device; one that names a physical function by address also means its virtual ones."""
    if pattern.vendor is not None and pattern.vendor.lower() != device.vendor.lower():
        return False
    if pattern.product is not None and pattern.product.lower() != device.product.lower():
        return False
    if pattern.type is not None and pattern.type != device.type:
        return False
    if pattern.address is None:
        return True
    addresses = [device.address, device.parent] if device.parent else [device.address]
    return any(fnmatchcase(address.lower(), pattern.address.lower()) for address in addresses)
