"""What is measured, under which name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from worker.bench.loads import CELL_CPUS, DEDICATED, DEVICES, NUMA, Load, churn, claims, mix, pinned


@dataclass(frozen=True, slots=True)
class Scenario:
    """A comparison of the bare loop with the worker under one load."""

    name: str
    title: str
    load: Load
    plain: bool = False
    """Whether the plain worker takes part."""


SCENARIOS: Final = (
    Scenario("claims-100", "claims over 100 nodes", Load(100, claims), plain=True),
    Scenario("claims-10000", "claims over 10,000 nodes", Load(10_000, claims)),
    Scenario("claims-1", "claims on one hot node", Load(1, claims, fresh=True), plain=True),
    Scenario("mix", "claim, resize, confirm and delete over 100 nodes", Load(100, mix)),
    Scenario(
        "pinned",
        "claims with 2 pinned CPUs and a device over 100 nodes",
        Load(100, pinned, NUMA, DEDICATED, fresh=True, per_node=min(DEVICES, CELL_CPUS)),
    ),
    Scenario("empty-node", "claim and delete on an empty node", Load(1, churn, fresh=True)),
    Scenario("full-node", "claim and delete on a node with 1,000 instances", Load(1, churn, filled=1000, fresh=True)),
)

_NAMED: Final = {scenario.name: scenario for scenario in SCENARIOS}

PAIRS: Final = (
    (_NAMED["claims-10000"], _NAMED["claims-100"]),
    (_NAMED["full-node"], _NAMED["empty-node"]),
)
"""A large load and the small one that it is held against."""
