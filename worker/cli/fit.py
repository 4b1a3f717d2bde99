"""``nodeledger fit``: which nodes could take a claim, how many times, and why the others cannot."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import UsageError
from worker.servers import writing

if TYPE_CHECKING:
    from schemas import Claim, Reason
    from worker.accounting.placing.repeat import Room
    from worker.accounting.state.view import Node

FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A claim as one JSON object; - is standard input.")]
TimesOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="Count no further than this on one node.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Show so many nodes at most; all if unset.")]
FittingFlag = Annotated[bool, typer.Option("--fitting", help="Show only nodes that could take it.")]

_PAGE: Final = 200
_ANY_NODE: Final = "any"
_NOBODY: Final = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Fit:
    """What one node could do for the claim. ``observed_at`` says how old what is known of it is."""

    node: str
    times: int
    counted_out: bool
    reasons: Sequence[Reason]
    observed_at: datetime | None


@dataclass(slots=True)
class Fitting:
    """Answers for one claim; nodes that are alike in every way are asked once."""

    claim: Claim
    most: int
    _known: dict[object, Room] = field(default_factory=dict)

    def on(self, node: Node) -> Fit:
        """What this node could do. What keeps every claim off it is told beside what this one lacks."""
        from worker.accounting.placing.repeat import Room, obstacles

        against = obstacles(node)
        room = Room(0) if node.host is None else self._room(node)
        if against:
            return Fit(node.name, 0, False, [*against, *(() if room.times else room.reasons)], node.observed_at)
        return Fit(node.name, room.times, not room.reasons, room.reasons, node.observed_at)

    def _room(self, node: Node) -> Room:
        from worker.accounting.placing.repeat import room_for

        if node.host is None:
            raise AssertionError("only an observed node has room")
        taken = node.occupancy
        key = (id(node.host), frozenset(taken.used.items()), frozenset(taken.pinned), frozenset(taken.held))
        if key not in self._known:
            self._known[key] = room_for(node.host, taken, self.claim.members()[0], self.most)
        return self._known[key]


def fit(
    file: FileArgument,
    times: TimesOption = 10_000,
    limit: LimitOption = None,
    fitting: FittingFlag = False,
    as_json: console.JsonFlag = False,
) -> None:
    """Tell which nodes could take a claim, how many times over, and why the others cannot.

    The claim needs its resources, and its topology, devices and traits if it
    has any; with a node (or candidates) only those are asked. Nothing is
    locked or changed, and no hypervisor is asked: the answer is about what the
    ledger knows now. Exit status 1 if no node could take it.
    """
    claim, names = read_claim(_read(file))
    found = run(_fits(Fitting(claim, times), names))
    if names is not None:
        found += [_unknown(name) for name in names if name not in {one.node for one in found}]
    found.sort(key=lambda one: (-one.times, one.node))
    shown = [one for one in found if one.times or not fitting][:limit]
    console.print_rows(map(_document if as_json else _row, shown), "node #times why_no_more", as_json=as_json)
    able = sum(one.times > 0 for one in found)
    console.note(f"{able} of {len(found)} nodes could take it, {sum(one.times for one in found)} times altogether")
    raise typer.Exit(OK if able else FINDING)


def read_claim(text: bytes) -> tuple[Claim, list[str] | None]:
    """The claim, completed with whatever does not matter here, and the nodes it names; ``None`` for all.

    Raises:
        OperationError: it is no claim, or one for several instances.
    """
    from pydantic_core import from_json, to_json

    from schemas import VERSION, Claim, MalformedCommandError, parse_command

    try:
        given = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise UsageError(f"the claim is not JSON: {error}") from None
    if not isinstance(given, dict):
        raise UsageError("the claim is not a JSON object")
    rest = {"version": VERSION, "id": _NOBODY, "issued_at": "2000-01-01T00:00:00Z", "kind": "claim"}
    rest |= {"node": _ANY_NODE, "project": "any", "instance": _NOBODY}
    try:
        claim = parse_command(to_json({**rest, **given}))
    except MalformedCommandError as error:
        raise UsageError(f"the claim is not one: {error.detail}") from None
    if not isinstance(claim, Claim) or claim.instances is not None:
        raise UsageError("fit answers for a claim of one instance")
    named = ([claim.node] if "node" in given else []) + claim.candidates
    return claim, list(dict.fromkeys(named)) or None


def _read(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read {file}: {error.strerror}") from None


async def _fits(fitting: Fitting, names: list[str] | None) -> list[Fit]:
    found = []
    with console.progress("placing") as advance:
        async for page in _nodes(names):
            for node in page:
                found.append(fitting.on(node))
                advance(1)
    return found


async def _nodes(names: list[str] | None) -> AsyncIterator[list[Node]]:
    """All nodes, or those of these names, by name; each page as it was at one moment."""
    from worker.ledger.nodes import load_nodes
    from worker.ledger.statements import statement

    after = ""
    async with writing() as pool:
        while True:
            async with pool.acquire() as connection:
                rows = await connection.fetch(statement("node_ids"), after, names, _PAGE)
                page = await load_nodes(connection, [row["id"] for row in rows])
            yield page
            if len(rows) < _PAGE:
                return
            after = rows[-1]["name"]


def _unknown(name: str) -> Fit:
    from worker.accounting.rules.decision import reason

    return Fit(name, 0, False, [reason("node_unknown", f"node {name} is not registered", node=name)], None)


def _row(one: Fit) -> dict[str, object]:
    why = "; ".join(why.detail for why in one.reasons)
    return {"node": one.node, "times": one.times, "why_no_more": "counted no further" if one.counted_out else why}


def _document(one: Fit) -> dict[str, object]:
    reasons = [why.model_dump(exclude_none=True) for why in one.reasons]
    return {
        "node": one.node,
        "times": one.times,
        "counted_out": one.counted_out,
        "observed_at": one.observed_at,
        "reasons": reasons,
    }
