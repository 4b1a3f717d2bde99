"""Why a guest finds no place among a host's cells: what each of them lacks, in numbers and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.cpuset import format_cpu_set
from worker.accounting.placing.search import unmatched
from worker.accounting.reasons.refusals import refusal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.outcomes import Reason
    from worker.accounting.host.cells import Room
    from worker.accounting.placing.fitting import Lack
    from worker.accounting.placing.guests import Guest
    from worker.accounting.work import Work

MAX_CELLS: Final = 64
"""How many host cells one reason tells about."""

MAX_NEEDS: Final = 8
"""For how many different guest cells it tells what a host cell lacks."""


def too_few_cells(wanted: int, present: int) -> Reason:
    """The guest has more cells than the host."""
    known = f"the node has {present}" if present else "the node reports no cells"
    return refusal(
        "no_numa_fit",
        f"the guest has {wanted} cells, {known}",
        resource="cells",
        requested=wanted,
        capacity=present,
        short_by=wanted - present,
    )


def why_no_cells(
    rooms: Sequence[Room],
    rows: Sequence[int],
    guest: Guest,
    found: Sequence[Sequence[int | list[Lack]]],
    work: Work,
) -> Reason:
    """What each host cell lacks for the guest cells that are left over when as many as can be have found room.

    ``found`` is for each guest cell what was found out on each of the host cells.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    left = unmatched(rows, work) or []
    short_by = len(left)
    needs = {guest.cells[number].need for number in left}
    left = [number for number, cell in enumerate(guest.cells) if cell.need in needs]
    work.spend(1 + len(rooms) * (len(rows) // 8 + 4 * len(needs)))
    shown: list[dict[str, object]] = []
    for position, room in _first_cells(rooms):
        entry: dict[str, object] = {"cell": room.cell.id}
        if fits := [number for number, row in enumerate(rows) if row >> position & 1]:
            entry["fits"] = format_cpu_set(fits)
        if lacking := _lacking({number: found[number][position] for number in left}):
            entry["lacks"] = lacking
        shown.append(entry)
    return refusal(
        "no_numa_fit",
        f"no room for {short_by} of {len(rows)} guest cells: {_sentence(shown)}{_rest(rooms)}",
        resource="cells",
        requested=len(rows),
        capacity=len(rooms),
        short_by=short_by,
        cells=shown,
    )


def _lacking(found: Mapping[int, int | list[Lack]]) -> list[Lack]:
    """What a host cell lacks for some guest cells; those that lack the same are named together."""
    alike: list[tuple[list[Lack], list[int]]] = []
    for number, lacking in found.items():
        if isinstance(lacking, int):
            continue
        members = next((members for known, members in alike if known == lacking), None)
        if members is None:
            alike.append((lacking, [number]))
        else:
            members.append(number)
    return [
        {"guest_cells": format_cpu_set(members), **lack} for lacking, members in alike[:MAX_NEEDS] for lack in lacking
    ]


def why_no_networks(rooms: Sequence[Room], rows: Sequence[int], guest: Guest) -> Reason:
    """The cells with room for the guest are not those that its networks are near to."""
    shown: list[dict[str, object]] = []
    for position, room in _first_cells(rooms):
        near = sorted(guest.physnets & room.cell.physnets)
        fits = format_cpu_set(number for number, row in enumerate(rows) if row >> position & 1)
        shown.append(
            {"cell": room.cell.id, "physnets": near, "tunneled": guest.tunneled and room.cell.tunneled, "fits": fits}
        )
    wanted = [*sorted(guest.physnets), *(["tunnels"] if guest.tunneled else [])]
    return refusal(
        "no_numa_fit",
        f"no {len(rows)} cells with room for the guest are near all its networks ({', '.join(wanted)}){_rest(rooms)}",
        resource="networks",
        requested=len(wanted),
        cells=shown,
    )


def _first_cells(rooms: Sequence[Room]) -> list[tuple[int, Room]]:
    """Host cells by number, each with its place among the rooms; no more than are told about."""
    return sorted(enumerate(rooms), key=lambda item: item[1].cell.id)[:MAX_CELLS]


def _rest(rooms: Sequence[Room]) -> str:
    return f"; and {len(rooms) - MAX_CELLS} more cells" if len(rooms) > MAX_CELLS else ""


def _sentence(shown: Sequence[Mapping[str, object]]) -> str:
    return "; ".join(f"cell {entry['cell']} {_cell_words(entry)}" for entry in shown)


def _cell_words(entry: Mapping[str, object]) -> str:
    lacking = entry.get("lacks")
    if isinstance(lacking, list):
        return "lacks " + ", ".join(_words(lack) for lack in lacking)
    return f"has room for guest cell {entry.get('fits', 'none')}"


def _words(lack: Lack) -> str:
    of = f" of {lack['page_size_kib']} KiB" if lack.get("page_size_kib") else ""
    if "caches" in lack:
        of = f" in {lack['caches']} last-level caches" if lack["caches"] else ": its host tells no last-level caches"
    if lack["resource"] == "page_multiple":
        return f"pages that divide {lack['requested']} MiB (they are{of})"
    if "short_by" not in lack:
        return f"pages{of} altogether" if of else "such pages altogether"
    return f"{lack['short_by']} {lack['resource']}{of} ({lack['requested']} requested, {lack['free']} free)"
