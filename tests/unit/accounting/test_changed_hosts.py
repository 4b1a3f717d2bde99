"""The host changed under its guests: what they hold counts against what there is now, and what stays may stay."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from schemas.commands import MODELS
from tests.model.scene import Scene, uuid
from tests.reference.room import Json
from tests.unit.accounting.builders import NOBODY, again, cell, codes, fill, host, pci, placed, shape
from worker.accounting.decide import decide
from worker.accounting.placing.place import place
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.state.view import View

LARGE = 2048


def paged(*totals: int) -> Any:
    pages = [[{"size_kib": 4, "total": 262144}, {"size_kib": LARGE, "total": total}] for total in totals]
    cells = [
        cell(number, f"{number * 4}-{number * 4 + 3}", memory_mib=1024 + total * 2, pages=sizes)
        for number, (total, sizes) in enumerate(zip(totals, pages, strict=True))
    ]
    return host(cells=cells)


def large(pages: int) -> Any:
    return shape(1, pages * 2, topology={"page_size": LARGE})


def test_pages_held_on_a_cell_that_is_gone_count_against_those_there_are() -> None:
    occupancy = fill(paged(1000, 1000), NOBODY, large(1000), large(1000))
    assert codes(place(paged(2000), occupancy, large(1))) == ["no_numa_fit"]
    fill(paged(2001), occupancy, large(1))


def test_pages_beyond_those_of_a_cell_that_shrank_count_against_those_of_others() -> None:
    occupancy = fill(paged(1000, 0), NOBODY, large(1000))
    assert codes(place(paged(400, 1000), occupancy, large(401))) == ["no_numa_fit"]
    fill(paged(400, 1000), occupancy, large(400))


def test_a_trait_that_was_lost_refuses_growth_and_nothing_else() -> None:
    scene = Scene()
    scene.nodes("n", policy={"traits": ["HW_FAST"]})
    sizes = [{"resources": {"vcpus": count, "memory_mib": 512}} for count in (1, 2, 3)]
    traits = {"traits": {"required": ["HW_FAST"]}}
    scene.claim("n", 1, **sizes[1], **traits)
    scene.nodes("n", policy={})
    scene.applied("resize", "n", instance=uuid(1), mode="immediate", **sizes[0], **traits)
    refused = scene.do("resize", "n", instance=uuid(1), mode="immediate", **sizes[2], **traits)
    assert [why["code"] for why in refused["reasons"]] == ["missing_trait"]


def test_a_guest_may_shrink_in_pages_of_a_size_that_is_listed_no_more() -> None:
    occupancy = fill(paged(1000), NOBODY, large(500))
    before = placed(place(paged(1000), NOBODY, large(500)))
    bare = host(cells=[cell(0, "0-3", pages=[{"size_kib": 4, "total": 262144}])])
    assert placed(again(bare, occupancy, before, large(400))).charge[f"cell/0/pages/{LARGE}"] == 400
    assert codes(again(bare, occupancy, before, large(501))) == ["no_numa_fit"]


NOW = datetime(2026, 11, 22, tzinfo=UTC)
HOST: Json = {"cpus": "0-7", "memory_mib": 16384, "disk_gib": 100}
POLICY: Json = {"dedicated_cpus": "0-7", "reserved": {"memory_mib": 0}}


class Ledger:
    """One node whose commands are decided and posted, whatever they ask."""

    def __init__(self) -> None:
        self.view = View()

    def do(self, kind: str, **fields: object) -> Decision:
        head = {"version": 1, "id": str(uuid4()), "issued_at": NOW.isoformat(), "kind": kind, "node": "n"}
        command = MODELS[kind].model_validate_json(json.dumps({**head, **fields}))
        decision = decide(self.view, command, NOW)
        assert isinstance(decision, Decision)
        if decision.status == "applied":
            post(self.view, command, decision)
        return decision

    def put(self, *cells: Json, policy: Json = POLICY, **more: object) -> list[str]:
        """Put the node with these cells; returns the codes of what is told."""
        told = self.do("node.put", inventory={**HOST, "cells": list(cells), **more}, policy=policy)
        return [notice.code for notice in told.warnings]

    def claim(self, instance: int, **wish: object) -> Decision:
        return self.do("claim", instance=uuid(instance), project="p", **wish)

    def resize(self, **wish: object) -> Decision:
        return self.do("resize", instance=uuid(1), mode="immediate", **wish)

    def pins(self, instance: int) -> set[int]:
        return {cpu for cpu, holder in self.view.nodes["n"].occupancy.pinned.items() if str(holder) == uuid(instance)}


def asks(vcpus: int, memory_mib: int, disk_gib: int = 0, **topology: object) -> Json:
    resources = {"vcpus": vcpus, "memory_mib": memory_mib, "disk": {"root_gib": disk_gib}}
    return {"resources": resources, "topology": {"cpu_policy": "dedicated", **topology}}


def test_siblings_that_come_on_beside_an_isolated_guest_go_to_nobody_else_and_are_told() -> None:
    ledger = Ledger()
    ledger.put(cell(0, "0-3"))
    ledger.claim(1, **asks(2, 512, thread_policy="isolate"))
    assert ledger.pins(1) == {0, 1}
    assert ledger.put(cell(0, "0-7", ["0,4", "1,5", "2,6", "3,7"])) == ["siblings_withheld"]
    assert [why.code for why in ledger.claim(2, **asks(5, 512)).reasons] == ["no_numa_fit"]
    ledger.claim(2, **asks(4, 512))
    assert ledger.pins(2) == {2, 3, 6, 7}
    ledger.do("delete", instance=uuid(1))
    ledger.claim(3, **asks(4, 512))


def test_shared_guests_do_not_float_over_the_siblings_of_an_isolated_guest() -> None:
    ledger = Ledger()
    ledger.put(cell(0, "0-3"))
    ledger.claim(1, **asks(2, 512, thread_policy="isolate"))
    divided = {**POLICY, "shared_cpus": "4-7", "dedicated_cpus": "0-3"}
    ledger.put(cell(0, "0-7", ["0,4", "1,5", "2,6", "3,7"]), policy=divided)
    shape: Json = {"resources": {"vcpus": 1, "memory_mib": 512}}
    assert (ledger.claim(2, **shape).assignment or {})["shared_cpus"] == "6-7"


def test_a_guest_that_does_not_grow_stays_where_cpus_cells_networks_and_devices_are_gone() -> None:
    devices = [{"name": "gpu", "match": [{"vendor": "10de"}], "affinity": "required"}]
    networks = {"physnets": ["a"]}
    wish = {**asks(4, 2048, cells=2, networks=networks), "devices": devices}
    cells = [cell(0, "0-3", physnets=["a"]), cell(1, "4-7")]
    changed: list[Json] = [
        {"cells": cells, "devices": []},
        {"cells": cells[:1], "devices": [pci("0000:01:00.0", cell=0)]},
        {"cells": [cell(5, "0-7", memory_mib=512)], "devices": []},
        {"cells": cells, "cpus": "1-4", "devices": [pci("0000:01:00.0", cell=0)]},
        {"cells": [cells[1], {**cells[0], "physnets": []}], "devices": [pci("0000:01:00.0", cell=None)]},
        {"cells": [], "devices": []},
    ]
    for host_now in changed:
        ledger = Ledger()
        ledger.put(*cells, devices=[pci("0000:01:00.0", cell=0)])
        ledger.claim(1, **wish)
        before = ledger.pins(1)
        ledger.put(*host_now.pop("cells"), **host_now)
        bigger_disk = {**asks(4, 2048, 9, cells=2, networks=networks), "devices": devices}
        assert ledger.resize(**bigger_disk).status == "applied"
        smaller = {**asks(2, 1024, 9, cells=2, networks=networks), "devices": devices}
        assert ledger.resize(**smaller).status == "applied"
        assert ledger.pins(1) <= before
        assert ledger.resize(**{**wish, **asks(64, 2048, cells=2)}).status == "rejected"
        ledger.do("delete", instance=uuid(1))
        assert ledger.view.nodes["n"].occupancy.used == {}


def test_what_a_changed_host_takes_back_is_refused_to_whoever_asks_for_something_else() -> None:
    ledger = Ledger()
    device: Json = {"name": "gpu", "match": [{"vendor": "10de"}]}
    ledger.put(cell(0, "0-7"), devices=[pci("0000:01:00.0")])
    ledger.claim(1, **asks(2, 512), devices=[device])
    ledger.put(cell(0, "0-7"))
    other = {**device, "match": [{"product": "ffff"}]}
    assert [why.code for why in ledger.resize(**asks(2, 512), devices=[other]).reasons] == ["no_device_fit"]
    more = {**device, "count": 2}
    assert [why.code for why in ledger.resize(**asks(2, 512), devices=[more]).reasons] == ["no_device_fit"]
