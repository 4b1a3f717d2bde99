from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import NOBODY, cells_of, pinned, placed, refused, shape, two_cells, wanted
from worker.accounting.placing.place import place

HOST = two_cells({"shared_cpus": "0,4", "dedicated_cpus": "1-3,5-7"})


@pytest.mark.parametrize(
    ("topology", "field"),
    [
        ({"thread_policy": "prefer"}, "thread_policy"),
        ({"emulator_threads": "isolate"}, "emulator_threads"),
        ({"dedicated_vcpus": "0"}, "dedicated_vcpus"),
        ({"realtime_vcpus": "0"}, "realtime_vcpus"),
        ({"cpu_policy": "dedicated", "dedicated_vcpus": "0"}, "dedicated_vcpus"),
        ({"cpu_policy": "mixed"}, "dedicated_vcpus"),
        ({"cpu_policy": "mixed", "dedicated_vcpus": "0-3"}, "dedicated_vcpus"),
        ({"cpu_policy": "mixed", "dedicated_vcpus": "3-4"}, "dedicated_vcpus"),
        ({"cpu_policy": "mixed", "dedicated_vcpus": "1", "realtime_vcpus": "1"}, "dedicated_vcpus"),
        ({"cpu_policy": "dedicated", "realtime_vcpus": ""}, "realtime_vcpus"),
        ({"cpu_policy": "dedicated", "realtime_vcpus": "0-3"}, "realtime_vcpus"),
        ({"cpu_policy": "dedicated", "realtime_vcpus": "3-9"}, "realtime_vcpus"),
        ({"locked_memory": True}, "locked_memory"),
        ({"cells": 3}, "cells"),
        ({"cells": [{"vcpus": "0-3", "memory_mib": 1023}]}, "cells"),
        ({"cells": [{"vcpus": "0-2", "memory_mib": 1024}]}, "cells"),
        ({"cells": [{"vcpus": "0-4", "memory_mib": 1024}]}, "cells.0.vcpus"),
        ({"cells": [{"vcpus": "0-2", "memory_mib": 512}, {"vcpus": "2-3", "memory_mib": 512}]}, "cells.1.vcpus"),
        ({"cpu_policy": "mixed", "dedicated_vcpus": "3", "cells": 2, "emulator_threads": "isolate"}, "cells"),
        ({"cpu_policy": "mixed", "dedicated_vcpus": "3", "cells": 2, "thread_policy": "isolate"}, "cells"),
    ],
)
def test_a_request_that_contradicts_itself_is_refused_by_field(topology: dict[str, Any], field: str) -> None:
    reasons = refused(place(HOST, NOBODY, shape(4, 1024, topology=topology)))
    assert ("invalid_request", f"topology.{field}") in {(reason.code, reason.resource) for reason in reasons}


@pytest.mark.parametrize(
    "topology",
    [
        {},
        {"emulator_threads": "share"},
        {"networks": {"physnets": ["dc1"]}},
    ],
)
def test_a_topology_that_asks_for_nothing_charges_no_cells(topology: dict[str, Any]) -> None:
    assert placed(place(HOST, NOBODY, shape(2, 1024, topology=topology))).charge == {"vcpus": 2, "memory_mib": 1024}


def test_shared_and_dedicated_cpus_are_charged_apart() -> None:
    wish = pinned(4, cells=2, emulator_threads="isolate")
    assert placed(place(HOST, NOBODY, wish)).charge["pcpus"] == 5
    mixed = shape(4, 1024, topology={"cpu_policy": "mixed", "dedicated_vcpus": "1-3", "cells": 2})
    charge = placed(place(HOST, NOBODY, mixed)).charge
    assert (charge["vcpus"], charge["pcpus"]) == (1, 3)


def test_realtime_vcpus_of_a_mixed_guest_are_its_dedicated_ones() -> None:
    wish = shape(2, 1024, topology={"cpu_policy": "mixed", "realtime_vcpus": "1"})
    (cell,) = cells_of(placed(place(HOST, NOBODY, wish)))
    assert (cell["shared_vcpus"], cell["shared_cpus"], list(cell["pins"])) == ("0", "0", ["1"])


def test_a_mediated_type_asked_of_another_kind_of_device_is_refused() -> None:
    wish = shape(devices=[wanted(type="vf", match=[{"mdev_type": "nvidia-35"}])])
    (reason,) = refused(place(HOST, NOBODY, wish))
    assert (reason.code, reason.resource) == ("invalid_request", "devices.0.match.0.mdev_type")
