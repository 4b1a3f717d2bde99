"""Commands as producers write them, for property tests: plain JSON values of every kind."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from schemas import format_cpu_set

Json = dict[str, Any]

labels = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]) | st.just(" "), min_size=1, max_size=8)
node_names = st.builds("{}{}".format, st.sampled_from("aZ7"), st.text(st.sampled_from("abcXYZ019._-"), max_size=12))
uuids = st.uuids().map(str)
moments = st.builds(
    "20{:02}-{:02}-{:02}T{:02}:{:02}:{:02}{}".format,
    st.integers(0, 99), st.integers(1, 12), st.integers(1, 28), st.integers(0, 23), st.integers(0, 59),
    st.integers(0, 59), st.sampled_from(["Z", "z", "+00:00", "-11:30", ".5Z", ".123456+14:00"]),
)  # fmt: skip
amounts = st.integers(0, 2**40)
cpu_sets = st.frozensets(st.integers(0, 300), min_size=1, max_size=5).map(format_cpu_set)
ratios = st.one_of(st.integers(1, 1000), st.decimals("0.000001", 1000, places=6).map(lambda ratio: f"{ratio:f}"))
names = st.text(st.sampled_from("ABZ09_"), min_size=1, max_size=6)
custom = st.dictionaries(st.builds("CUSTOM_{}".format, names), st.integers(1, 2**40), max_size=4)
tags = st.dictionaries(labels, labels, max_size=4)


def optional(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


def _address(device: Any) -> str:
    return str(device["address"])


disks = st.fixed_dictionaries(
    {}, optional={"root_gib": st.integers(0, 2**30), "swap_mib": amounts, "boot_from_volume": st.booleans()}
)
resources = st.fixed_dictionaries(
    {"vcpus": st.integers(1, 65_536), "memory_mib": st.integers(1, 2**40)}, optional={"disk": disks, "custom": custom}
)
guest_cells = st.lists(
    st.fixed_dictionaries({"vcpus": cpu_sets, "memory_mib": st.integers(1, 2**20)}), min_size=1, max_size=4
)
topologies = st.fixed_dictionaries(
    {},
    optional={
        "cpu_policy": st.sampled_from(["shared", "dedicated", "mixed"]),
        "thread_policy": optional(st.sampled_from(["prefer", "isolate", "require"])),
        "dedicated_vcpus": optional(cpu_sets),
        "page_size": optional(st.sampled_from(["small", "large", "any"]) | st.integers(1, 2**30)),
        "cells": optional(st.integers(1, 1024) | guest_cells),
        "cache": optional(st.sampled_from(["prefer", "require"])),
        "networks": optional(st.fixed_dictionaries({}, optional={"physnets": st.lists(labels, max_size=2)})),
    },
)
hex_ids = st.text(st.sampled_from("019afAF"), min_size=4, max_size=4)
matches = st.fixed_dictionaries({}, optional={"vendor": hex_ids, "product": optional(hex_ids), "tags": tags})
devices = st.lists(
    st.fixed_dictionaries(
        {"name": labels, "match": st.lists(matches, min_size=1, max_size=2)},
        optional={"count": st.integers(1, 256), "type": optional(st.sampled_from(["pci", "vf"]))},
    ),
    max_size=3,
)
policies = st.fixed_dictionaries(
    {},
    optional={
        "enabled": st.booleans(),
        "ratios": st.fixed_dictionaries({}, optional={"vcpus": ratios, "memory": ratios}),
        "dedicated_cpus": optional(cpu_sets),
        "limits": st.dictionaries(
            st.sampled_from(["vcpus", "pcpus", "memory_mib", "CUSTOM_A"]),
            st.fixed_dictionaries({}, optional={"max": st.integers(1, 2**40), "step": st.integers(1, 100)}),
        ),
        "devices": optional(st.lists(matches, max_size=2)),
        "custom": custom,
    },
)
inventories: st.SearchStrategy[Json] = st.fixed_dictionaries(
    {"cpus": cpu_sets, "memory_mib": amounts},
    optional={
        "custom": custom,
        "devices": st.lists(
            st.fixed_dictionaries(
                {
                    "address": st.builds("0000:{:02x}:00.0".format, st.integers(0, 255)),
                    "vendor": hex_ids,
                    "product": hex_ids,
                },
                optional={"tags": tags, "mdev_types": st.dictionaries(labels, amounts, max_size=3)},
            ),
            max_size=3,
            unique_by=_address,
        ),
    },
)


def _kind(kind: str, needed: Json | None = None, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    base = {"version": st.just(1), "id": uuids, "kind": st.just(kind), "node": node_names, "issued_at": moments}
    common = {"expires_at": optional(moments), "dry_run": st.booleans()}
    return st.fixed_dictionaries(base | (needed or {}), optional=common | more)


def _about(kind: str, needed: Json | None = None, **more: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    return _kind(kind, {"instance": uuids} | (needed or {}), revision=optional(st.integers(0, 2**62)), **more)


_SHAPE: Json = {"topology": optional(topologies), "devices": devices}

commands: st.SearchStrategy[Json] = st.one_of(
    _kind("node.put", {"hypervisor": labels}, policy=policies),
    _kind("node.put", {"inventory": inventories}, policy=policies),
    _kind("node.remove", force=st.booleans()),
    _about("claim", {"project": labels, "resources": resources}, user=optional(labels), **_SHAPE),
    _about("resize", {"resources": resources}, destination=optional(node_names), **_SHAPE),
    _about("migrate", {"destination": st.just("elsewhere"), "reason": st.sampled_from(["live", "cold"])}, **_SHAPE),
    _about("confirm"),
    _about("revert"),
    _about("abort", reason=optional(labels)),
    _about("update", state=optional(labels), task=optional(labels)),
    _about("delete", verify=optional(st.booleans())),
    _kind("audit", repair=st.booleans()),
)


@st.composite
def reordered(draw: st.DrawFn, value: Any) -> Any:
    """The same content with the keys of every object in another order."""
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {key: draw(reordered(value[key])) for key in keys}
    if isinstance(value, list):
        return [draw(reordered(part)) for part in value]
    return value
