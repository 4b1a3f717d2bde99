from __future__ import annotations

from typing import Any

import pytest

from tests.unit.accounting.builders import (
    NOBODY,
    SOMEONE,
    again,
    cell,
    codes,
    fill,
    host,
    host_cells_of,
    pci,
    pinned,
    placed,
    refused,
    shape,
    two_cells,
    wanted,
)
from worker.accounting.placing.place import place
from worker.accounting.state.occupancy import Occupancy, beside

NIC = [
    pci("0000:05:00.0", type="pf"),
    pci("0000:05:00.1", type="vf", parent="0000:05:00.0"),
    pci("0000:05:00.2", type="vf", parent="0000:05:00.0"),
]
VGPU = [
    pci("0000:3b:00.0", mdev_types={"nvidia-35": 2, "nvidia-36": 1}),
    pci("0000:3c:00.0", mdev_types={"nvidia-35": 2}),
]


def take(devices: list[dict[str, Any]], *requests: dict[str, Any], occupancy: Occupancy = NOBODY) -> list[str]:
    placement = placed(place(host(devices=devices), occupancy, shape(devices=list(requests))))
    assigned: Any = placement.assignment["devices"]
    return [f"{device['name']} {device['address']}" for device in assigned]


def deny(devices: list[dict[str, Any]], *requests: dict[str, Any], occupancy: Occupancy = NOBODY) -> list[Any]:
    return refused(place(host(devices=devices), occupancy, shape(devices=list(requests))))


def test_the_lowest_address_is_chosen_whatever_the_order_of_the_inventory() -> None:
    devices = [pci(f"0000:0{bus}:00.0") for bus in (3, 1, 2)]
    assert take(devices, wanted(count=2)) == ["gpu 0000:01:00.0", "gpu 0000:02:00.0"]


@pytest.mark.parametrize(
    ("match", "address"),
    [
        ({"vendor": "8086"}, "b"),
        ({"vendor": "10DE", "product": "1DB7"}, "c"),
        ({"address": "d*"}, "d"),
        ({"tags": {"net": "dc1"}}, "e"),
    ],
)
def test_every_property_named_must_match(match: dict[str, Any], address: str) -> None:
    devices = [
        pci("a"),
        pci("b", vendor="8086"),
        pci("c", product="1db7"),
        pci("d"),
        pci("e", tags={"net": "dc1", "x": "y"}),
    ]
    assert take(devices, wanted(match=[match])) == [f"gpu {address}"]


def test_any_one_of_several_matches_will_do() -> None:
    devices = [pci("a"), pci("b", vendor="8086"), pci("c", vendor="15b3")]
    assert take(devices, wanted(count=2, match=[{"vendor": "15b3"}, {"vendor": "8086"}])) == ["gpu b", "gpu c"]


def test_devices_with_distinctions_are_left_for_those_who_ask_for_them() -> None:
    assert take([pci("a", tags={"net": "dc1"}), pci("b")], wanted()) == ["gpu b"]


def test_what_can_only_be_had_by_giving_way_is_had() -> None:
    devices = [pci("a"), pci("b"), pci("c")]
    requests = [wanted("any"), wanted("ab", match=[{"address": "[ab]"}]), wanted("a", match=[{"address": "a"}])]
    assert take(devices, *requests) == ["any c", "ab b", "a a"]


def test_requests_that_cannot_all_be_served_name_the_one_that_goes_short() -> None:
    (reason,) = deny([pci("a"), pci("b")], wanted("two", count=2), wanted("b", match=[{"address": "b"}]))
    assert (reason.code, reason.resource, reason.short_by) == ("no_device_fit", "b", 1)


def test_a_physical_function_hides_its_virtual_functions_and_the_other_way_round() -> None:
    physical, virtual = wanted("pf", type="pf"), wanted("vf", type="vf")
    assert take(NIC, physical) == ["pf 0000:05:00.0"]
    assert [reason.resource for reason in deny(NIC, physical, virtual)] == ["vf"]
    (reason,) = deny(NIC, physical, occupancy=Occupancy(held={"0000:05:00.2": SOMEONE}))
    assert reason.devices == [
        {
            "address": "0000:05:00.0",
            "cell": None,
            "held_by": str(SOMEONE),
            "lacks": "0000:05:00.2 excludes it",
        }
    ]
    assert deny(NIC, virtual, occupancy=Occupancy(held={"0000:05:00.0": SOMEONE}))
    assert take(NIC, virtual, occupancy=Occupancy(held={"0000:05:00.1": SOMEONE})) == ["vf 0000:05:00.2"]


def test_a_virtual_function_gives_way_to_a_physical_function_asked_for_beside_it() -> None:
    other = [
        pci("0000:06:00.0", type="pf"),
        pci("0000:06:00.1", type="vf", parent="0000:06:00.0"),
    ]
    requests = [wanted("vf", type="vf"), wanted("pf", type="pf", match=[{"address": "0000:05:*"}])]
    assert take([*NIC, *other], *requests) == ["vf 0000:06:00.1", "pf 0000:05:00.0"]


@pytest.mark.timeout(20)
def test_functions_that_exclude_each_other_are_refused_without_trying_every_choice() -> None:
    devices = [
        pci(f"{card:02x}.{function}", type="vf" if function else "pf", parent=f"{card:02x}.0" if function else None)
        for card in range(24)
        for function in range(9)
    ]
    physical, virtual = wanted("pf", count=12, type="pf"), wanted("vf", count=97, type="vf")
    (reason,) = deny(devices, physical, virtual)
    assert (reason.resource, reason.short_by) == ("vf", 1)
    assert len(take(devices, physical, {**virtual, "count": 96})) == 108


def test_physical_functions_and_vdpa_are_only_given_to_those_who_ask_for_them() -> None:
    devices = [pci("a", type="pf"), pci("b", type="vdpa", parent="a"), pci("c", type="vf", parent="d"), pci("e")]
    assert take(devices, wanted(count=2)) == ["gpu e", "gpu c"]
    assert take(devices, wanted(type="vdpa")) == ["gpu b"]
    assert deny(devices, wanted("pf", type="pf"), wanted("vdpa", type="vdpa"))


def test_devices_are_filtered_by_live_migration() -> None:
    devices = [pci("a"), pci("b", live_migratable=True), pci("c", live_migratable=False)]
    assert take(devices, wanted(live_migratable=True)) == ["gpu b"]
    assert take(devices, wanted(live_migratable=False)) == ["gpu c"]


def test_mediated_devices_are_counted_by_type_and_one_type_at_a_time() -> None:
    wish = wanted("vgpu", type="mdev", match=[{"mdev_type": "nvidia-35"}])
    here = host(devices=VGPU)
    placement = placed(place(here, NOBODY, shape(devices=[{**wish, "count": 3}])))
    assert placement.charge["mdev/0000:3b:00.0/nvidia-35"] == 2
    assert placement.charge["mdev/0000:3c:00.0/nvidia-35"] == 1
    assert placement.devices == ()
    occupancy = beside(NOBODY, SOMEONE, placement)
    assert take(VGPU, wish, occupancy=occupancy) == ["vgpu 0000:3c:00.0"]
    assert codes(place(here, occupancy, shape(devices=[{**wish, "count": 2}]))) == ["no_device_fit"]
    assert deny(VGPU, wanted(type="mdev", match=[{"mdev_type": "nvidia-36"}]), occupancy=occupancy)
    assert deny(VGPU, wanted(type="pci"), occupancy=occupancy)


def test_a_parent_gives_way_to_the_type_that_only_it_can_carry() -> None:
    requests = [
        wanted("a", type="mdev", match=[{"mdev_type": "nvidia-35"}]),
        wanted("b", match=[{"mdev_type": "nvidia-36"}]),
    ]
    assert take(VGPU, *requests) == ["a 0000:3c:00.0", "b 0000:3b:00.0"]


def test_devices_are_not_handed_out_unless_the_policy_names_them_on_an_observed_host() -> None:
    wish = shape(devices=[wanted()])
    assert codes(place(host(devices=[pci("a")], observed=True), NOBODY, wish)) == ["no_device_fit"]
    named = host({"devices": [{"address": "a"}]}, devices=[pci("a"), pci("b")], observed=True)
    assert placed(place(named, NOBODY, wish)).devices == ("a",)
    assert codes(place(host({"devices": []}, devices=[pci("a")]), NOBODY, wish)) == ["no_device_fit"]


def test_a_pattern_tags_what_it_admits_and_a_physical_functions_address_means_its_virtual_ones() -> None:
    policy = {"devices": [{"address": "0000:05:00.0", "tags": {"net": "dc1"}, "live_migratable": True}]}
    wish = shape(devices=[wanted(type="vf", match=[{"tags": {"net": "dc1"}}], live_migratable=True)])
    assert placed(place(host(policy, devices=NIC), NOBODY, wish)).devices == ("0000:05:00.1",)


def test_a_pattern_admits_the_types_of_mediated_devices_that_it_names() -> None:
    policy = {"devices": [{"address": "0000:3b:00.0", "mdev_types": ["nvidia-36"]}, {"address": "0000:3c:00.0"}]}
    here = host(policy, devices=VGPU)
    wish = wanted(type="mdev", match=[{"mdev_type": "nvidia-35"}], count=3)
    (reason,) = refused(place(here, NOBODY, shape(devices=[wish])))
    assert reason.short_by == 1, "two on the card whose types are not named"
    assert placed(place(here, NOBODY, shape(devices=[wanted(match=[{"mdev_type": "nvidia-36"}])]))).charge


def test_devices_whose_kin_is_not_admitted_exclude_nothing_else() -> None:
    policy = {"devices": [{"address": "0000:01:00.0"}, {"type": "vf"}]}
    here = host(policy, devices=[pci("0000:01:00.0"), *NIC])
    placement = placed(
        place(here, NOBODY, shape(devices=[wanted("vf", type="vf", count=2), wanted("card", type="pci")]))
    )
    assert set(placement.devices) == {"0000:01:00.0", "0000:05:00.1", "0000:05:00.2"}


def test_a_held_device_that_vanished_or_is_not_admitted_still_excludes_its_kin() -> None:
    policy = {"devices": [{"type": "vf"}]}
    occupancy = Occupancy(held={"0000:05:00.0": SOMEONE, "0000:99:00.0": SOMEONE})
    assert codes(place(host(policy, devices=NIC), occupancy, shape(devices=[wanted(type="vf")]))) == ["no_device_fit"]


def affine(affinity: str, *, cells: list[int | None], count: int = 1, sockets: tuple[Any, ...] = (0, 0, 1)) -> Any:
    """A one-cell guest that only fits on cell 0 of three, and devices on the given cells."""
    layout = [cell(number, "0-3" if not number else "", socket=sockets[number]) for number in range(3)]
    devices = [pci(str(number), cell=where) for number, where in enumerate(cells)]
    here = host({"dedicated_cpus": "0-3"}, cells=layout, devices=devices)
    return place(here, NOBODY, pinned(devices=[wanted(affinity=affinity, count=count)]))


@pytest.mark.parametrize(
    ("affinity", "cells", "chosen"),
    [
        ("required", [1, None, 0], ("2",)),
        ("required", [1, None, 2], None),
        ("legacy", [1, None, 0], ("2",)),
        ("legacy", [1, None], ("1",)),
        ("legacy", [1, 2], None),
        ("socket", [2, 1], ("1",)),
        ("socket", [2, None], None),
        ("preferred", [2, 1, 0], ("2",)),
        ("preferred", [2, None], ("1",)),
        ("preferred", [2], ("0",)),
    ],
)
def test_affinity_says_how_near_devices_must_be(
    affinity: str, cells: list[int | None], chosen: tuple[str] | None
) -> None:
    result = affine(affinity, cells=cells)
    if chosen is None:
        assert codes(result) == ["no_device_fit"]
    else:
        assert placed(result).devices == chosen


def test_sockets_that_are_not_known_are_not_near() -> None:
    assert codes(affine("socket", cells=[1], sockets=(0, 0, None))) == ["no_device_fit"]
    placed(affine("socket", cells=[0], sockets=(0, 0, None)))


def test_a_guest_is_laid_where_its_devices_are_and_away_from_them_if_it_wants_none() -> None:
    here = two_cells(devices=[pci("a", cell=1), pci("b", cell=1)])
    near = pinned(2, cells=1, devices=[wanted(affinity="required", count=2)])
    assert host_cells_of(placed(place(here, NOBODY, near))) == [1]
    assert host_cells_of(placed(place(here, NOBODY, pinned(2)))) == [0]
    assert host_cells_of(placed(place(here, Occupancy(held={"a": SOMEONE, "b": SOMEONE}), pinned(2)))) == [0]


def test_cells_are_chosen_for_all_devices_together() -> None:
    cells = [cell(number, str(number)) for number in range(6)]
    devices = [pci("a", cell=1), pci("b", cell=4, product="1db7"), pci("c", cell=5)]
    here = host({"dedicated_cpus": "0-5"}, cells=cells, devices=devices)
    requests = [
        wanted("x", affinity="required", match=[{"product": "1db6"}]),
        wanted("y", affinity="required", match=[{"product": "1db7"}]),
    ]
    assert host_cells_of(placed(place(here, NOBODY, pinned(2, cells=2, devices=requests)))) == [1, 4]


def test_a_refusal_for_distance_says_which_devices_are_too_far() -> None:
    here = two_cells({"dedicated_cpus": "0-3"}, devices=[pci("a", cell=1)])
    (reason,) = refused(place(here, NOBODY, pinned(devices=[wanted(affinity="required")])))
    assert (
        reason.detail
        == "1 gpu requested, 1 of 1 that match are free, 0 of them near enough, for a guest on cells 0: 1 too few"
    )
    assert reason.devices == [{"address": "a", "cell": 1, "free": 1, "lacks": "affinity"}]


def test_an_instance_that_wants_more_devices_keeps_those_it_has() -> None:
    here = host(devices=[pci("a"), pci("b"), pci("c")])
    wish = shape(devices=[wanted()])
    occupancy = fill(here, NOBODY, wish)
    before = placed(place(here, occupancy, wish))
    assert before.devices == ("b",)
    freed = beside(NOBODY, SOMEONE, before)
    after = placed(again(here, freed, before, shape(devices=[wanted(count=2)])))
    assert after.devices == ("a", "b")
    assert placed(again(here, freed, before, wish)).devices == ("b",)


@pytest.mark.parametrize(
    ("parent", "first"), [("0000:05:00.0", "pf"), ("0000:05:00.0".upper(), "vf"), ("05:00.0", "pf"), ("0:5:0.0", "vf")]
)
def test_a_physical_function_excludes_its_virtual_ones_however_their_addresses_are_spelled(
    parent: str, first: str
) -> None:
    devices = [pci("0000:05:00.0", type="pf"), pci("0000:05:02.0", type="vf", parent=parent)]
    other = {"pf": "vf", "vf": "pf"}[first]
    (reason,) = deny(devices, wanted(type=first), wanted("other", type=other))
    assert (reason.code, reason.resource) == ("no_device_fit", "other")


@pytest.mark.parametrize("spelled", ["0000:AF:00.0", "af:00.0", "0:AF:0.0", "0000:AF:*", "00000000:af:00.?", "AF:0.*"])
def test_an_address_is_matched_by_a_policy_and_by_a_request_however_it_is_spelled(spelled: str) -> None:
    there = host({"devices": [{"address": spelled}]}, observed=True, devices=[pci("0000:aF:00.0"), pci("0000:b0:00.0")])
    asked = shape(devices=[wanted(match=[{"address": spelled}])])
    (given,) = placed(place(there, NOBODY, asked)).devices
    assert given == "0000:af:00.0"


def test_a_request_without_a_type_is_told_as_which_one_a_device_would_match() -> None:
    (reason,) = deny([pci("0000:05:00.0", type="pf")], wanted())
    assert "none of the node's devices matches (as `type: pf` there is one that would)" in reason.detail
    (reason,) = deny([pci("0000:05:00.0", type="pf")], wanted(type="vf"))
    assert "`type: pf`" in reason.detail
    (reason,) = deny([pci("0000:05:00.0", type="pf")], wanted(match=[{"vendor": "8086"}]))
    assert "type" not in reason.detail
