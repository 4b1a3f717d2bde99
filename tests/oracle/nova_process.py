"""Answers cases with Nova's own code: one JSON object a line in, one out. Runs in Nova's environment.

Nova's search is applied without its cache, which is keyed by an id that the
search itself changes: the order of host cells, the fit of one cell on another,
the network test and the device test are Nova's, each on fresh copies.
"""

from __future__ import annotations

import copy
import itertools
import json
import logging
import sys
from typing import Any

import exact_devices
import nova.conf
from nova import exception, objects
from nova.network import constants  # noqa: F401 - registers network options that limits refer to
from nova.pci import stats as pci_stats
from nova.virt import hardware

Json = dict[str, Any]
DEVICE_TYPES = {"pci": "type-PCI", "pf": "type-PF", "vf": "type-VF", "vdpa": "vdpa"}


class Whitelist:
    """Gives every device the tags of its case."""

    def __init__(self, devices: list[Json]) -> None:
        self.tags = {device["address"]: pool_tags(device) for device in devices}

    def get_devspec(self, device: Any) -> Any:
        return type("Spec", (), {"get_tags": lambda _: dict(self.tags[device.address])})()


def pool_tags(device: Json) -> dict[str, str]:
    live = device["live_migratable"]
    return {**device["tags"], **({} if live is None else {"live_migratable": str(live).lower()})}


def host_topology(case: Json) -> Any:
    cells = []
    for cell in case["cells"]:
        built = objects.NUMACell(
            id=cell["id"], socket=cell["socket"], cpuset=set(cell["shared"]), pcpuset=set(cell["dedicated"]),
            memory=cell["memory_mib"], memory_usage=cell["used_memory_mib"], cpu_usage=cell["used_vcpus"],
            pinned_cpus=set(cell["pinned"]), siblings=[set(core) for core in cell["siblings"]],
            mempages=[
                objects.NUMAPagesTopology(
                    size_kb=p["size_kib"], total=p["total"], used=p["used"], reserved=p["reserved"]
                )
                for p in cell["pages"]
            ],
        )  # fmt: skip
        built.network_metadata = objects.NetworkMetadata(physnets=set(cell["physnets"]), tunneled=cell["tunneled"])
        cells.append(built)
    return objects.NUMATopology(cells=cells)


def flavor(case: Json) -> Any:
    wanted, specs = case["topology"], {}
    for key, name in (
        ("cpu_policy", "hw:cpu_policy"),
        ("thread_policy", "hw:cpu_thread_policy"),
        ("emulator_threads", "hw:emulator_threads_policy"),
        ("dedicated_vcpus", "hw:cpu_dedicated_mask"),
        ("page_size", "hw:mem_page_size"),
    ):
        if wanted.get(key) is not None:
            specs[name] = str(wanted[key])
    if wanted.get("realtime_vcpus") is not None:
        specs |= {"hw:cpu_realtime": "yes", "hw:cpu_realtime_mask": wanted["realtime_vcpus"]}
    if wanted.get("locked_memory"):
        specs["hw:locked_memory"] = "true"
    cells = wanted.get("cells")
    if isinstance(cells, int):
        specs["hw:numa_nodes"] = str(cells)
    elif cells is not None:
        specs["hw:numa_nodes"] = str(len(cells))
        for number, cell in enumerate(cells):
            specs[f"hw:numa_cpus.{number}"] = cell["vcpus"]
            specs[f"hw:numa_mem.{number}"] = str(cell["memory_mib"])
    return objects.Flavor(vcpus=case["vcpus"], memory_mb=case["memory_mib"], name="f", extra_specs=specs)


def stats_of(case: Json, topology: Any) -> Any:
    stats = pci_stats.PciDeviceStats(topology, dev_filter=Whitelist(case["devices"]))
    built = {}
    for device in case["devices"]:
        built[device["address"]] = objects.PciDevice(
            compute_node_id=1, address=device["address"], vendor_id=device["vendor"], product_id=device["product"],
            dev_type=DEVICE_TYPES[device["type"]], parent_addr=device["parent"], numa_node=device["cell"],
            status="available", extra_info={}, dev_id=device["address"], label="l", instance_uuid=None, request_id=None,
        )  # fmt: skip
    for device in built.values():
        if (parent := built.get(device.parent_addr)) is not None:
            device.parent_device = parent
            parent.child_devices.append(device)
    for device in exact_devices.free_devices(case["devices"]):
        stats.add_device(built[device["address"]])
    return stats


def requests_of(case: Json) -> list[Any]:
    built = []
    for number, request in enumerate(case["requests"]):
        common = {}
        if request["type"] is not None:
            common["dev_type"] = DEVICE_TYPES[request["type"]]
        if request["live_migratable"] is not None:
            common["live_migratable"] = str(request["live_migratable"]).lower()
        spec = []
        for match in request["match"]:
            named = {"vendor_id": match.get("vendor"), "product_id": match.get("product"), **match.get("tags", {})}
            spec.append({**common, **{key: value for key, value in named.items() if value is not None}})
        built.append(
            objects.InstancePCIRequest(
                count=request["count"], spec=spec, numa_policy=request["affinity"], request_id=str(number)
            )
        )
    return built


def order_of(host: Any, guest: Any, requests: list[Any], stats: Any, limits: Any) -> list[Any]:
    """The host's cells in the order in which Nova would permute them."""
    seen: list[Any] = []

    class Permutations:
        @staticmethod
        def permutations(cells: Any, _count: int) -> Any:
            seen.extend(cells)
            return iter(())

        chain = itertools.chain

    hardware.itertools = Permutations
    try:
        hardware.numa_fit_instance_to_host(host, guest, None, limits, requests, stats)
    finally:
        hardware.itertools = itertools
    return seen


def fit(host_cell: Any, guest_cell: Any, limits: Any, reserved: int) -> Any:
    try:
        return hardware._numa_fit_instance_cell(host_cell, copy.deepcopy(guest_cell), limits, reserved)
    except exception.MemoryPageSizeNotSupported:
        return None


def shown(cell: Any) -> Json:
    pins = dict(cell.cpu_pinning or {})
    reserved = cell.cpuset_reserved if cell.obj_attr_is_set("cpuset_reserved") else None
    return {
        "cell": cell.id,
        "page_size_kib": cell.pagesize,
        "pins": list(pins.values()),
        "reserved": sorted(reserved or ()),
    }


def usage(host: Any) -> Json:
    return {
        str(cell.id): {
            "vcpus": cell.cpu_usage, "memory_mib": cell.memory_usage, "pinned": len(cell.pinned_cpus),
            "pages": {str(p.size_kb): int(p.used) for p in cell.mempages},
        }
        for cell in host.cells
    }  # fmt: skip


class Search:
    """All arrangements of one case in Nova's order."""

    def __init__(self, case: Json) -> None:
        self.case = case
        self.host = host_topology(case)
        networks = case["topology"].get("networks")
        self.metadata = None
        self.limits = objects.NUMATopologyLimits(
            cpu_allocation_ratio=float(case["ratios"][0]), ram_allocation_ratio=float(case["ratios"][1])
        )
        if networks:
            self.metadata = objects.NetworkMetadata(physnets=set(networks["physnets"]), tunneled=networks["tunneled"])
            self.limits.network_metadata = self.metadata
        self.stats = stats_of(case, self.host)
        self.requests = requests_of(case)

    def answer(self) -> Json:
        guest = hardware.numa_get_constraints(flavor(self.case), objects.ImageMeta.from_dict({}))
        if guest is None:
            return self.without_cells()
        if len(self.host.cells) < len(guest.cells):
            return {"fit": None, "raw": None, "cached": None}
        cells = order_of(self.host, guest, self.requests, self.stats, self.limits)
        isolated = guest.emulator_threads_isolated
        rows = [
            [fit(h, g, self.limits, 1 if isolated and not number else 0) for h in cells]
            for number, g in enumerate(guest.cells)
        ]
        truth, raw = self.first(guest, cells, rows)
        return {
            "fit": truth and self.accepted(guest, truth),
            "raw": raw and self.accepted(guest, raw),
            "cached": self.cached(),
        }

    def cached(self) -> list[int] | None:
        """The host cells that Nova chooses when left to itself."""
        guest = hardware.numa_get_constraints(flavor(self.case), objects.ImageMeta.from_dict({}))
        fits = hardware.numa_fit_instance_to_host(self.host, guest, None, self.limits, self.requests, self.stats)
        return fits and [cell.id for cell in fits.cells]

    def without_cells(self) -> Json:
        exact = exact_devices.possible(self.case["devices"], self.case["requests"], None, self.case["cells"])
        raw = not self.requests or self.stats.support_requests(self.requests, None, None)
        return {
            "fit": {"cells": [], "devices": self.consumed(None)} if exact else None,
            "raw": {"cells": [], "devices": self.consumed(None)} if raw else None,
        }

    def first(self, guest: Any, cells: list[Any], rows: list[list[Any]]) -> tuple[Any, Any]:
        """The first arrangement with the exact device test, and with Nova's own."""
        truth = raw = None
        for positions in itertools.permutations(range(len(cells)), len(guest.cells)):
            fits = [rows[number][position] for number, position in enumerate(positions)]
            if None in fits:
                continue
            chosen = [cells[position] for position in positions]
            if self.metadata and not hardware._numa_cells_support_network_metadata(self.host, chosen, self.metadata):
                continue
            if truth is None and self.exact(fits):
                truth = fits
            if raw is None and (not self.requests or self.stats.support_requests(self.requests, None, fits)):
                raw = fits
            if truth is not None and raw is not None:
                break
        return truth, raw

    def exact(self, fits: list[Any]) -> bool:
        chosen = [cell.id for cell in fits]
        return bool(exact_devices.possible(self.case["devices"], self.case["requests"], chosen, self.case["cells"]))

    def accepted(self, guest: Any, fits: list[Any]) -> Json:
        cells = [copy.deepcopy(cell) for cell in fits]
        placed = objects.InstanceNUMATopology(cells=cells, emulator_threads_policy=guest.emulator_threads_policy)
        if guest.cells[0].cpu_thread_policy == "isolate":
            hosts = {host_cell.id: host_cell for host_cell in copy.deepcopy(self.host).cells}
            for cell in cells:
                hosts[cell.id].pin_cpus_with_siblings(set(cell.cpu_pinning.values()) | set(cell.cpuset_reserved or ()))
        if not all(cell.mempages for cell in self.host.cells):  # Nova cannot add up use where a cell has no pages
            return {"cells": [shown(cell) for cell in cells], "usage": None, "devices": self.consumed(cells)}
        after = hardware.numa_usage_from_instance_numa(self.host, placed)
        back = hardware.numa_usage_from_instance_numa(after, placed, free=True)
        return {
            "cells": [shown(cell) for cell in cells],
            "usage": usage(after),
            "restored": usage(back) == usage(self.host),
            "devices": self.consumed(cells),
        }

    def consumed(self, cells: list[Any] | None) -> list[list[int | None]] | None:
        """The cells of the devices that Nova would take for each request; None where its own test was wrong."""
        if not self.requests:
            return []
        stats = stats_of(self.case, self.host)
        try:
            devices = stats.consume_requests(requests_of(self.case), cells)
        except exception.PciDeviceRequestFailed:
            return None
        return [
            [device.numa_node for device in devices if device.request_id == request.request_id]
            for request in self.requests
        ]


def main() -> None:
    logging.disable(logging.CRITICAL)
    nova.conf.CONF([], project="nova", default_config_files=[], default_config_dirs=[])
    objects.register_all()
    for line in sys.stdin:
        case = json.loads(line)
        nova.conf.CONF.set_override("packing_host_numa_cells_allocation_strategy", case["pack"], "compute")
        try:
            answer = Search(case).answer()
        except exception.CPUPinningInvalid:
            answer = {"pinned_twice": True}
        except exception.NovaException as error:
            answer = {"error": type(error).__name__}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
