from __future__ import annotations

from pathlib import Path
from uuid import UUID

import pytest

from schemas.cpuset import parse_cpu_set
from schemas.inventory import Inventory
from schemas.policy import Policy, Reserved
from tests.unit.accounting.builders import NOBODY, pinned, placed
from worker.accounting.host.compiled import build_host
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Placement, beside
from worker.hypervisor.capabilities import parse_capabilities
from worker.hypervisor.inventory import Observation, inventory_of

HOSTS = Path(__file__).parents[2] / "data" / "hosts"
EVERY_HOST = sorted(path.stem for path in HOSTS.glob("*.xml"))
POLICY = Policy(dedicated_cpus="0-1023", reserved=Reserved(memory_mib=0))


def observed(name: str) -> Inventory:
    capabilities = parse_capabilities((HOSTS / f"{name}.xml").read_text())
    return inventory_of(Observation(capabilities, memory_mib=16_384, cpu_count=8, online=None))


@pytest.mark.parametrize("name", EVERY_HOST)
def test_an_inventory_that_was_stored_is_decided_upon_as_before(name: str) -> None:
    inventory = observed(name)
    stored = Inventory.model_validate_json(inventory.model_dump_json())
    before, after = (build_host(one, POLICY, observed=True) for one in (inventory, stored))
    assert before == after
    for wish in (pinned(2), pinned(2, cells=2), pinned(1, page_size="large"), pinned(4, thread_policy="require")):
        assert place(before, NOBODY, wish) == place(after, NOBODY, wish)


@pytest.mark.parametrize("name", EVERY_HOST)
def test_every_cpu_of_a_cell_can_be_pinned_exactly_once(name: str) -> None:
    inventory = observed(name)
    here, occupancy = build_host(inventory, POLICY, observed=True), NOBODY
    for number in range(4096):
        result = place(here, occupancy, pinned(1, 1))
        if not isinstance(result, Placement):
            break
        occupancy = beside(occupancy, UUID(int=number), placed(result))
    cells = [cell for cell in inventory.cells if cell.memory_mib]
    expected = frozenset[int]().union(*(parse_cpu_set(cell.cpus) for cell in cells))
    assert set(occupancy.pinned) == (expected if inventory.cells else parse_cpu_set(inventory.cpus))
