"""One example of every message, as the published documents show it."""

from __future__ import annotations

from typing import Any, Final

_INSTANCE: Final = "0199c0de-0000-7000-8000-0000000000aa"


def _command(number: int, kind: str, **fields: object) -> dict[str, Any]:
    return {
        "version": 1,
        "id": f"0199c0de-0000-7000-8000-{number:012x}",
        "kind": kind,
        "node": "cn-017",
        "issued_at": "2026-11-22T07:00:00Z",
        **fields,
    }


_RESOURCES: Final = {"vcpus": 4, "memory_mib": 8192, "disk": {"root_gib": 20, "swap_mib": 512}}
_PINNED: Final = {"cpu_policy": "dedicated", "page_size": "large", "cells": 2}
_GPU: Final = {"name": "gpu", "match": [{"vendor": "10de", "product": "1db6"}]}

COMMANDS: Final[dict[str, dict[str, Any]]] = {
    "node.put": _command(
        1,
        "node.put",
        hypervisor="qemu+tls://cn-017.example/system",
        policy={"ratios": {"vcpus": "4.0"}, "reserved": {"memory_mib": 2048}, "dedicated_cpus": "4-31"},
    ),
    "node.remove": _command(2, "node.remove"),
    "claim": _command(
        3,
        "claim",
        instance=_INSTANCE,
        project="web",
        user="ada",
        resources=_RESOURCES,
        topology=_PINNED,
        devices=[_GPU],
        revision=1,
    ),
    "resize": _command(4, "resize", instance=_INSTANCE, resources={**_RESOURCES, "vcpus": 8}, revision=2),
    "migrate": _command(5, "migrate", instance=_INSTANCE, destination="cn-018", reason="live", revision=3),
    "confirm": _command(6, "confirm", instance=_INSTANCE, revision=4),
    "revert": _command(7, "revert", instance=_INSTANCE, revision=4),
    "abort": _command(8, "abort", instance=_INSTANCE, reason="the image could not be fetched"),
    "update": _command(9, "update", instance=_INSTANCE, state="active", os_type="linux"),
    "delete": _command(10, "delete", instance=_INSTANCE, verify=True),
    "audit": _command(11, "audit"),
}

OUTCOME: Final[dict[str, Any]] = {
    "version": 1,
    "command": "0199c0de-0000-7000-8000-000000000003",
    "kind": "claim",
    "status": "rejected",
    "node": "cn-017",
    "instance": _INSTANCE,
    "at": "2026-11-22T07:00:00.004Z",
    "generation": 42,
    "usage": {"vcpus": {"used": 60, "capacity": 64}},
    "reasons": [
        {
            "code": "insufficient",
            "detail": "vcpus on cn-017: 8 requested, 60 of 64 used, 4 short",
            "node": "cn-017",
            "resource": "vcpus",
            "requested": 8,
            "used": 60,
            "capacity": 64,
            "short_by": 4,
        }
    ],
}
