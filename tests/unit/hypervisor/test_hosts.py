from __future__ import annotations

import re
from pathlib import Path

import pytest

from schemas.inventory import Inventory
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
        ("", "not well-formed"),
        ("<capabilities>", "not well-formed"),
        ("<domain/>", "the document is a <domain>"),
        ("<capabilities/>", "has no <host>"),
        ("<!DOCTYPE c [<!ENTITY a 'aaa'>]><capabilities>&a;</capabilities>", "DTD or entities"),
        ("<capabilities>" + " " * (9 * 2**20) + "</capabilities>", "longer than"),
        (cells("<cell/>"), "<cell> id: missing"),
        (cells("<cell id='x'/>"), "<cell> id: 'x' is not a whole number"),
        (cells("<cell id='-1'/>"), "<cell> id: -1 is not between"),
        (cells("<cell id='1'/><cell id='1'/>"), "<cell id=1>: listed twice"),
        (cells("<cell id='0'><cpus><cpu id='99999999'/></cpus></cell>"), "<cell id=0> <cpu> id"),
        (cells("<cell id='0'><cpus><cpu id='1' siblings='0-'/></cpus></cell>"), "<cell id=0> <cpu id=1> siblings"),
        (cells("<cell id='0'><cpus><cpu id='1' socket_id='a'/></cpus></cell>"), "<cpu> socket_id"),
        (
            cells("<cell id='0'><cpus><cpu id='1'/></cpus></cell><cell id='1'><cpus><cpu id='1'/></cpus></cell>"),
            "<cpu id=1>: in cell 0 and in cell 1",
        ),
        (cells("<cell id='0'><memory unit='KiB'>much</memory></cell>"), "<memory>: 'much' is not a whole number"),
        (cells("<cell id='0'><memory unit='furlong'>1</memory></cell>"), "<memory> unit: 'furlong' is unknown"),
        (cells("<cell id='0'><pages size='0'>1</pages></cell>"), "<pages> size: 0 is not between"),
        (
            cells("<cell id='0'><pages size='4'>1</pages><pages size='4'>1</pages></cell>"),
            "<pages size=4>: listed twice",
        ),
        (cells("<cell id='" + "9" * 5000 + "'/>"), "is not a whole number"),
    ],
)
def test_a_document_that_cannot_be_used_is_refused_by_the_name_of_its_fault(text: str, said: str) -> None:
    with pytest.raises(XmlFault, match=re.escape(said)) as caught:
        parse_capabilities(text)
    assert len(str(caught.value)) < 200


def test_a_document_nested_a_hundred_thousand_deep_is_read_without_harm() -> None:
    depth = 100_000
    made = parse_capabilities("<capabilities><host>" + "<a>" * depth + "</a>" * depth + "</host></capabilities>")
    assert made.cells == ()


def test_numbers_the_contract_cannot_hold_are_refused_by_name() -> None:
    capabilities = parse_capabilities(cells(f"<cell id='0'><memory>{2**61}</memory></cell>"))
    with pytest.raises(XmlFault, match=r"memory_mib: "):
        inventory_of(Observation(capabilities, memory_mib=1, cpu_count=1, online=None))


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
