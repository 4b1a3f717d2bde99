"""What the model plays with: a few nodes in several settings, and guests of several kinds.

Small on purpose, so that nodes run full, CPUs run out and functions of cards
exclude each other within a few steps.
"""

from __future__ import annotations

from typing import Any, Final

Json = dict[str, Any]

_CARD: Final[list[Json]] = [
    {"address": "0000:5e:00.0", "vendor": "8086", "product": "158b", "type": "pf"},
    {"address": "0000:5e:02.0", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
    {"address": "0000:5e:02.1", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
]
_PLAIN: Final[Json] = {"cpus": "0-3", "memory_mib": 4608, "disk_gib": 40, "custom": {"CUSTOM_LICENSE": 2}}
_CELLS: Final[Json] = {
    "cpus": "0-7",
    "memory_mib": 8704,
    "disk_gib": 60,
    "cells": [
        {"id": 0, "socket": 0, "cpus": "0-3", "memory_mib": 4352, "caches": ["0-1", "2-3"]},
        {"id": 1, "socket": 1, "cpus": "4-7", "memory_mib": 4352, "caches": ["4-5", "6-7"]},
    ],
    "devices": _CARD,
}
_SPLIT: Final[Json] = {"shared_cpus": "0,4", "dedicated_cpus": "1-3,5-7", "max_inventory_age_seconds": 0}
_FRESH: Final[Json] = {"ratios": {"vcpus": "2.0"}, "max_inventory_age_seconds": 0}

HYPERVISOR: Final = "test:///default"
MOVED_HYPERVISOR: Final = "qemu:///system"

OBSERVED: Final[list[Json]] = [
    _PLAIN,
    {**_PLAIN, "memory_mib": 2560},
    {**_CELLS, "cpus": "0-6", "devices": _CARD[:2]},
]
"""What a hypervisor may report, one after the other."""

SETTINGS: Final[dict[str, list[Json]]] = {
    "alpha": [
        {"inventory": _PLAIN, "policy": _FRESH},
        {"inventory": _PLAIN, "policy": {**_FRESH, "enabled": False}},
        {
            "inventory": {**_PLAIN, "memory_mib": 1536, "custom": {}},
            "policy": {"overhead": {"memory_mib_per_vcpu": 16}, "custom": {"CUSTOM_LICENSE": 1}},
        },
        {"inventory": _PLAIN, "policy": {**_FRESH, "custom": {"CUSTOM_LICENSE": 9}}},
    ],
    "beta": [
        {"inventory": _CELLS, "policy": _SPLIT},
        {"inventory": _CELLS, "policy": {**_SPLIT, "enabled": False}},
        {"inventory": {**_CELLS, "devices": _CARD[:2]}, "policy": {**_SPLIT, "dedicated_cpus": "1,5-7"}},
        {"inventory": _CELLS, "policy": {**_SPLIT, "devices": []}},
        {"inventory": _CELLS, "policy": {"ratios": {"vcpus": "1.0", "memory": "1.5"}}},
    ],
    "gamma": [
        {"hypervisor": HYPERVISOR, "policy": _FRESH},
        {"hypervisor": HYPERVISOR, "policy": {**_FRESH, "custom": {"CUSTOM_LICENSE": 4}}},
        {"hypervisor": HYPERVISOR, "policy": {**_FRESH, "verify_deletes": False, "overhead": {"memory_mib": 7}}},
        {"hypervisor": MOVED_HYPERVISOR, "policy": {**_SPLIT, "devices": [{"vendor": "8086"}]}},
        {"inventory": _CELLS, "policy": _SPLIT},
    ],
}
"""The nodes, and the settings that ``node.put`` may give each."""

NODES: Final = tuple(SETTINGS)

RENAMED: Final = {"alpha": "aleph", "beta": "beth", "gamma": "gimel"}
"""What each of them is called for a while."""

_NIC: Final[Json] = {"name": "nic", "match": [{"vendor": "8086"}], "affinity": "preferred"}

SHAPES: Final[list[Json]] = [
    {"resources": {"vcpus": 1, "memory_mib": 512}},
    {"resources": {"vcpus": 4, "memory_mib": 2048, "disk": {"root_gib": 10, "swap_mib": 100}}},
    {"resources": {"vcpus": 2, "memory_mib": 1024, "custom": {"CUSTOM_LICENSE": 1}}},
    {"resources": {"vcpus": 2, "memory_mib": 1024}, "topology": {"cpu_policy": "dedicated"}},
    {"resources": {"vcpus": 3, "memory_mib": 1536}, "topology": {"cpu_policy": "dedicated"}},
    {"resources": {"vcpus": 4, "memory_mib": 2048}, "topology": {"cpu_policy": "dedicated", "cells": 2}},
    {"resources": {"vcpus": 3, "memory_mib": 1792}, "topology": {"cpu_policy": "dedicated", "cells": 1}},
    {"resources": {"vcpus": 2, "memory_mib": 512}, "topology": {"cpu_policy": "dedicated", "cache": "require"}},
    {"resources": {"vcpus": 3, "memory_mib": 512}, "topology": {"cpu_policy": "dedicated", "cache": "prefer"}},
    {"resources": {"vcpus": 1, "memory_mib": 512}, "devices": [{**_NIC, "type": "vf", "count": 1}]},
    {"resources": {"vcpus": 1, "memory_mib": 512}, "devices": [{**_NIC, "type": "vf", "count": 2}]},
    {
        "resources": {"vcpus": 1, "memory_mib": 256},
        "topology": {"cpu_policy": "dedicated"},
        "devices": [{**_NIC, "type": "pf", "count": 1}],
    },
]
"""What guests may ask for."""
