from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import pytest

from schemas.inventory import MAX_ODDITIES, Inventory
from worker.hypervisor.capabilities import parse_capabilities
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.inventory import Inventories, Observation, inventory_of

HOSTS = Path(__file__).parents[2] / "data" / "hosts"
EVERY_HOST = sorted(path.stem for path in HOSTS.glob("*.xml"))


def observed(name: str, online: frozenset[int] | None = None, cpu_count: int = 8) -> Observation:
    capabilities = parse_capabilities((HOSTS / f"{name}.xml").read_text())
    return Observation(capabilities, memory_mib=16_384, cpu_count=cpu_count, online=online)


def host(name: str, online: frozenset[int] | None = None, cpu_count: int = 8) -> Inventory:
    return inventory_of(observed(name, online, cpu_count))


@pytest.mark.parametrize("name", EVERY_HOST)
def test_every_host_survives_being_stored_and_read_back(name: str) -> None:
    made = host(name)
    assert Inventory.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("name", EVERY_HOST)
def test_cells_never_name_a_cpu_that_is_offline(name: str) -> None:
    made = host(name, online=frozenset({0, 5, 9}))
    assert made.cpus == "0,5,9"
    assert {cpu for cell in made.cells if cell.cpus for cpu in cell.cpus.split(",")} <= {"0", "5", "9"}


def test_two_sockets_with_two_threads_a_core_are_read_in_full() -> None:
    made = host("x86-two-sockets-smt")
    assert (made.cpus, made.memory_mib) == ("0-15", 16_384)
    assert [(cell.id, cell.socket, cell.cpus, cell.memory_mib) for cell in made.cells] == [
        (0, 0, "0-3,8-11", 65_536),
        (1, 1, "4-7,12-15", 65_536),
    ]
    assert made.cells[1].siblings == ["4,12", "5,13", "6,14", "7,15"]
    assert [(pages.size_kib, pages.total) for pages in made.cells[0].pages] == [
        (4, 14_680_064),
        (2048, 4096),
        (1_048_576, 0),
    ]


def test_features_are_traits_under_both_names() -> None:
    traits = host("x86-two-sockets-smt").traits
    assert {"HW_CPU_X86_AVX2", "HW_CPU_X86_SSE4_2", "HW_CPU_X86_SSE42", "HW_CPU_X86_INTEL_VMX"} <= set(traits)
    assert {"HW_ARCH_X86_64", "HW_CPU_HYPERTHREADING"} <= set(traits)
    assert traits == sorted(traits)


def test_a_host_whose_threads_are_switched_off_has_no_hyperthreading() -> None:
    made = host("x86-two-sockets-smt", online=frozenset(range(8)))
    assert made.cells[0].siblings == ["0", "1", "2", "3"]
    assert "HW_CPU_HYPERTHREADING" not in made.traits


def test_gaps_in_the_cells_numbers_are_kept() -> None:
    assert [cell.id for cell in host("x86-eight-cells-with-gaps").cells] == [0, 1, 4, 5, 16, 17, 252, 254]


def test_a_cell_of_memory_alone_has_no_cpus_and_no_socket() -> None:
    cell = host("x86-memory-only-cell").cells[1]
    assert (cell.id, cell.cpus, cell.siblings, cell.socket, cell.memory_mib) == (2, "", [], None, 131_072)


def test_a_cell_whose_cpus_are_all_offline_keeps_its_memory() -> None:
    made = host("x86-cell-all-offline", online=frozenset(range(4)))
    assert (made.cells[1].cpus, made.cells[1].siblings, made.cells[1].memory_mib) == ("", [], 32_768)


@pytest.mark.parametrize("online", [None, frozenset({0, 1, 5})])
def test_a_cpu_listed_without_its_place_is_offline(online: frozenset[int] | None) -> None:
    cell = host("x86-offline-threads", online).cells[0]
    assert (cell.cpus, cell.siblings, cell.socket) == ("0-1,5", ["0", "1,5"], 0)


def test_a_host_without_cells_counts_its_cpus() -> None:
    assert host("x86-no-cells", cpu_count=6).cpus == "0-5"
    assert host("s390x-no-topology", online=frozenset({0, 2})).cpus == "0,2"


def test_cores_of_one_and_of_two_threads_live_side_by_side() -> None:
    assert host("x86-hybrid").cells[0].siblings == ["0-1", "2-3", "4-5", "6-7", "8", "9", "10", "11"]


def test_a_cell_that_spans_sockets_names_none() -> None:
    assert host("x86-two-sockets-in-one-cell").cells[0].socket is None


def test_cells_within_a_socket_name_the_same_one() -> None:
    assert [cell.socket for cell in host("x86-sub-numa-dies").cells] == [0, 0, 0, 0]


def test_power_has_cores_of_eight_threads() -> None:
    made = host("power8-smt8")
    assert [cell.siblings for cell in made.cells] == [["0-7", "8-15"], ["16-23", "24-31"]]
    assert made.cells[0].pages[0].size_kib == 64


def test_power_that_lends_its_threads_to_guests_has_one_cpu_a_core() -> None:
    made = host("power8-guests-own-the-threads", online=frozenset({0, 8}))
    assert (made.cpus, made.cells[0].siblings) == ("0,8", ["0", "8"])


def test_a_socket_of_minus_one_is_unknown() -> None:
    assert host("s390x-one-cell").cells[0].socket is None


def test_clusters_on_arm_are_told_and_keep_their_large_socket_numbers() -> None:
    made = host("aarch64-clusters")
    assert [(cell.socket, cell.dies, cell.clusters) for cell in made.cells] == [
        (36, ["0-3"], ["0-1", "2-3"]),
        (3180, ["4-7"], ["4-5", "6-7"]),
    ]
    offline = host("aarch64-clusters", online=frozenset({0, 4}))
    assert [(cell.dies, cell.clusters) for cell in offline.cells] == [(["0"], ["0"]), (["4"], ["4"])]
    assert host("aarch64-clusters").traits == ["HW_ARCH_AARCH64"]


def test_without_siblings_each_cpu_is_a_core() -> None:
    assert host("aarch64-no-siblings").cells[0].siblings == ["0", "1", "2", "3"]


def test_without_a_memory_element_the_pages_tell_the_memory() -> None:
    assert host("riscv64-no-memory-element").cells[0].memory_mib == 2048 + 32


def cells(inside: str) -> str:
    return f"<capabilities><host><topology><cells>{inside}</cells></topology></host></capabilities>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "there is no description"),
        ("<capabilities>", "not well-formed"),
        ("<domain/>", "the document is a <domain>"),
        ("<capabilities/>", "has no <host>"),
        ("<!DOCTYPE c [<!ENTITY a 'aaa'>]><capabilities>&a;</capabilities>", "DTD or entities"),
        ("<!DOCTYPE capabilities><capabilities><host/></capabilities>", "DTD or entities"),
        ("<capabilities>" + " " * (9 * 2**20) + "</capabilities>", "longer than"),
    ],
)
def test_what_is_no_description_of_a_host_is_refused_by_the_name_of_its_fault(text: str, said: str) -> None:
    with pytest.raises(XmlFault, match=re.escape(said)) as caught:
        parse_capabilities(text)
    assert len(str(caught.value)) < 200


SOUND = "<cell id='0'><memory>2048</memory><pages size='4'>512</pages><cpus><cpu id='0' socket_id='7' siblings='0'/>{}"
SOUND += "</cpus>{}</cell>"


@pytest.mark.parametrize(
    ("cpus", "rest", "beside", "said"),
    [
        ("", "", "<cell/>", "<cell> id: missing"),
        ("", "", "<cell id='x'/>", "<cell> id: 'x' is not a whole number"),
        ("", "", "<cell id='-1'/>", "<cell> id: -1 is not between"),
        ("", "", "<cell id='0'><cpus><cpu id='9'/></cpus></cell>", "<cell id=0>: listed twice"),
        ("", "", "<cell id='" + "9" * 5000 + "'/>", "is not a whole number"),
        ("<cpu id='99999999'/>", "", "", "<cell id=0> <cpu> id"),
        ("<cpu/>", "", "", "<cell id=0> <cpu> id: missing"),
        ("<cpu id='0' siblings='0-'/>", "", "", "<cell id=0> <cpu id=0> siblings"),
        ("<cpu id='0' siblings='0' socket_id='a'/>", "", "", "<cpu> socket_id"),
        ("", "<pages size='0'>1</pages>", "", "<cell id=0> <pages> size: 0 is not between"),
        ("", "<pages size='4'>1</pages>", "", "<cell id=0> <pages size=4>: listed twice"),
        ("", "<pages size='2048'>-1</pages>", "", "<cell id=0> <pages size=2048>: -1 is not between"),
        ("", "<pages size='2048' unit='MiB'>1</pages>", "", "<cell id=0> <pages> unit: not KiB"),
        ("", "<distances><sibling id='0' value='256'/></distances>", "", "<cell id=0> <distances>"),
        ("", "<distances><sibling value='20'/></distances>", "", "<cell id=0> <distances>"),
    ],
)
def test_what_is_odd_costs_itself_alone_and_is_told(cpus: str, rest: str, beside: str, said: str) -> None:
    for text in (cells(SOUND.format(cpus, rest) + beside), cells(SOUND.format(cpus, rest) + beside * 2)):
        made = inventory_of(Observation(parse_capabilities(text), 2, 1, frozenset({0})))
        assert [oddity for oddity in made.oddities if said in oddity] == made.oddities != []
        assert made == host_of(SOUND.format("", "")).model_copy(update={"oddities": made.oddities})
        assert Inventory.model_validate_json(made.model_dump_json()) == made


def host_of(inside: str) -> Inventory:
    return inventory_of(Observation(parse_capabilities(cells(inside)), 2, 1, frozenset({0})))


@pytest.mark.parametrize("memory", ["much", str(2**61), "-1", ""])
def test_where_the_memory_cannot_be_read_the_pages_tell_it(memory: str) -> None:
    (cell,) = host_of(f"<cell id='0'><memory>{memory}</memory><pages size='4'>512</pages></cell>").cells
    assert cell.memory_mib == 2
    made = host_of("<cell id='0'><memory unit='furlong'>1</memory></cell>")
    assert (made.cells[0].memory_mib, made.oddities) == (0, ["<cell id=0>: <memory> unit: 'furlong' is unknown"])


def test_a_cpu_in_two_cells_stays_in_its_first_one_and_that_is_told() -> None:
    text = """<cell id='0'><cpus><cpu id='0' siblings='0,2'/><cpu id='2' siblings='0,2'/></cpus></cell>
      <cell id='1'><cpus><cpu id='2' siblings='0,2'/><cpu id='1' siblings='1,2'/></cpus></cell>"""
    made = inventory_of(Observation(parse_capabilities(cells(text)), 2, 1, frozenset({0, 1, 2})))
    assert [(cell.cpus, cell.siblings) for cell in made.cells] == [("0,2", ["0,2"]), ("1", ["1"])]
    assert made.oddities == ["<cell id=1> <cpu id=2>: is in cell 0 already, and stays there"]


def test_of_a_host_that_is_odd_throughout_the_first_oddities_are_told() -> None:
    odd = "".join(f"<cell id='{'x' * number}'/>" for number in range(1, 30)) + "".join(
        f"<cell id='0'/><cell id='{number}'><pages size='0'>1</pages></cell>" for number in range(99)
    )
    made = host_of(odd)
    assert len(made.oddities) == MAX_ODDITIES
    assert len(made.cells) == 99


def test_the_cpus_of_each_last_level_cache_are_told_cell_by_cell() -> None:
    banks = """<cache><bank id='0' level='3' type='both' cpus='0-1'/><bank id='1' level='3' type='both' cpus='2-5'/>
      <bank id='2' level='3' type='both' cpus='5-6'/><bank id='3' level='2' type='both' cpus='0-7'/>
      <bank id='4' level='3' type='code' cpus='0-7'/><bank id='5' level='x' cpus='0'/></cache></host>"""
    listed = "".join(
        f"<cell id='{cell}'><cpus>" + "".join(f"<cpu id='{cpu}'/>" for cpu in cpus) + "</cpus></cell>"
        for cell, cpus in ((0, range(4)), (1, range(4, 8)))
    )
    text = cells(listed).replace("</host>", banks)
    made = inventory_of(Observation(parse_capabilities(text), 2, 8, frozenset(range(8)) - {1}))
    assert [cell.caches for cell in made.cells] == [["0", "2-3"], ["4-5", "6"]]
    assert made.oddities == ["<cache>: <bank> level: 'x' is not a whole number"]


def test_distances_and_whether_devices_can_be_assigned_are_told() -> None:
    distances = (
        "<distances><sibling id='0' value='10'/><sibling id='1' value='21'/><sibling id='9' value='1'/></distances>"
    )
    text = cells(f"<cell id='0'>{distances}</cell><cell id='1'/>")
    assert [cell.distances for cell in host_of(f"<cell id='0'>{distances}</cell><cell id='1'/>").cells] == [
        {0: 10, 1: 21},
        {},
    ]
    for said, known in (("yes", True), ("no", False), ("perhaps", None)):
        there = text.replace("<topology>", f"<iommu support='{said}'/><topology>")
        assert inventory_of(Observation(parse_capabilities(there), 2, 1, None)).iommu is known
    assert parse_capabilities(text).iommu is None


def test_the_machines_own_uuid_is_read_and_makes_no_two_hosts_different() -> None:
    one, other, odd = (
        parse_capabilities(cells("").replace("<topology>", f"<uuid>{uuid}</uuid><topology>"))
        for uuid in ("11111111-2222-4333-8444-555555555555", "22222222-2222-4333-8444-555555555555", "none")
    )
    assert one.uuid == UUID("11111111-2222-4333-8444-555555555555")
    assert one == other
    assert (odd.uuid, odd.oddities) == (None, ("<host> <uuid>: not a UUID",))


def test_a_document_nested_a_hundred_thousand_deep_is_read_without_harm() -> None:
    depth = 100_000
    made = parse_capabilities("<capabilities><host>" + "<a>" * depth + "</a>" * depth + "</host></capabilities>")
    assert made.cells == ()


def test_numbers_the_contract_cannot_hold_cost_themselves_alone() -> None:
    capabilities = parse_capabilities(cells("<cell id='0'><memory>2048</memory></cell>"))
    made = inventory_of(Observation(capabilities, 2**50, 1, frozenset({1, 99_999})))
    assert (made.cpus, made.memory_mib, len(made.oddities)) == ("1", 2, 2)


def test_cpus_that_a_set_cannot_write_out_are_left_out() -> None:
    listed = "".join(f"<cpu id='{cpu}'/>" for cpu in range(0, 4096, 2))
    capabilities = parse_capabilities(cells(f"<cell id='0'><cpus>{listed}</cpus></cell>"))
    made = inventory_of(Observation(capabilities, 2, 1, frozenset(range(0, 4096, 2))))
    assert made.cpus == made.cells[0].cpus
    assert made.cpus.startswith("0,2,4,6")
    assert Inventory.model_validate_json(made.model_dump_json()) == made
    assert made.oddities != []


def test_a_cpu_repeated_within_its_cell_is_one_cpu() -> None:
    text = cells("<cell id='0'><cpus><cpu id='0' siblings='0'/><cpu id='0' siblings='0'/></cpus></cell>")
    assert parse_capabilities(text).cells[0].cpus == {0}


def test_siblings_that_contradict_each_other_put_each_cpu_into_one_core() -> None:
    cpus = "<cpu id='0' siblings='0-1'/><cpu id='1' siblings='1-2'/><cpu id='2' siblings='0-2'/>"
    (read,) = parse_capabilities(cells(f"<cell id='0'><cpus>{cpus}</cpus></cell>")).cells
    assert read.cores == (frozenset({0, 1}), frozenset({2}))


def test_equal_observations_share_one_inventory() -> None:
    inventories = Inventories()
    first = inventories.of(observed("x86-hybrid"))
    assert inventories.of(observed("x86-hybrid")) is first
    assert inventories.of(observed("x86-hybrid", online=frozenset({0}))) is not first
