"""``nodeledger node``: the nodes, their use and what is held on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Final, cast

import typer

from worker.cli.common import console
from worker.cli.common.moments import Moment
from worker.cli.common.running import run
from worker.errors import OperationError
from worker.servers import reading

if TYPE_CHECKING:
    from worker.ledger.history import PastNode
    from worker.ledger.readers import Node, NodeDetail, ResourceUsage

app = typer.Typer(help="List nodes, or show one.")

_PAGE: Final = 1000
_NODE_COLUMNS: Final = "node enabled reachable #instances #vcpus #pcpus #memory_mib #disk_mib #failed_builds:failed"
_USAGE_COLUMNS: Final = "resource #total #reserved #capacity #used #free"
_POOL_COLUMNS: Final = "vendor product type mdev_type #cell tags #total #free"
HELD_COLUMNS: Final = "instance role project #vcpus #pcpus #memory_mib #disk_mib claimed_at lease_expires_at"


@app.command("list")
def list_(
    limit: Annotated[int | None, typer.Option(min=1, help="How many at most; all if unset.")] = None,
    as_json: console.JsonFlag = False,
) -> None:
    """List nodes by name, with what is used of what they have."""
    found = run(_nodes(limit))
    rows = map(asdict, found) if as_json else map(_summary, found)
    console.print_rows(rows, _NODE_COLUMNS, as_json=as_json)


@app.command()
def show(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node's name.")],
    at: Annotated[datetime | None, Moment("The node as it was then, rebuilt from the ledger.")] = None,
    as_json: console.JsonFlag = False,
) -> None:
    """Show a node: its settings, its use, and who holds what."""
    if at is not None:
        _print_past(run(_past(node, at)), as_json=as_json)
        return
    detail = run(_node(node))
    if detail is None:
        raise OperationError(f"there is no node {node!r}: `nodeledger node list` shows those there are")
    if as_json:
        console.print_document(asdict(detail), as_json=True)
    else:
        _print_detail(detail)


async def _nodes(limit: int | None) -> list[Node]:
    from worker.ledger import readers

    found: list[Node] = []
    async with reading() as pool, pool.acquire() as connection:
        while limit is None or len(found) < limit:
            wanted = _PAGE if limit is None else min(_PAGE, limit - len(found))
            page = await readers.nodes(connection, after=found[-1].node if found else "", limit=wanted)
            found += page
            if len(page) < wanted:
                break
    return found


async def _node(name: str) -> NodeDetail | None:
    from worker.ledger import readers

    async with reading() as pool, pool.acquire() as connection:
        return await readers.node(connection, name)


async def _past(name: str, at: datetime) -> PastNode:
    from worker.ledger.history import node_at

    async with reading() as pool, pool.acquire() as connection:
        past = await node_at(connection, name, at)
    if past is None:
        raise OperationError(f"there was no node {name!r} at {at.isoformat()}, as far as the ledger knows")
    return past


def _summary(node: Node) -> dict[str, object]:
    shown = {name: _share(node.usage.get(name)) for name in ("vcpus", "pcpus", "memory_mib", "disk_mib")}
    return {**asdict(node), **shown}


def _share(use: ResourceUsage | None) -> str | None:
    return None if use is None else f"{use.used}/{use.capacity}"


def usage_rows(usage: Mapping[str, ResourceUsage]) -> Iterator[dict[str, object]]:
    """Rows for a table of resources."""
    return ({"resource": resource, **asdict(amounts)} for resource, amounts in usage.items())


def _print_detail(detail: NodeDetail) -> None:
    node = asdict(detail.node)
    del node["usage"]
    inventory = "pushed" if detail.node.hypervisor is None else "observed"
    node |= {"parked": detail.parked, "inventory": inventory, "policy": detail.policy}
    node |= {"host_uuid": detail.host_uuid, "former_names": detail.former_names}
    console.print_document(node, as_json=False)
    _print_part("usage", usage_rows(detail.node.usage), _USAGE_COLUMNS)
    _print_part("held", map(asdict, detail.allocations), HELD_COLUMNS)
    _print_part("pinned CPUs", map(asdict, detail.pinned_cpus), "#cpu instance")
    _print_part("devices", map(asdict, detail.devices), "address vendor product type #cell parent state instance")
    _print_part("device pools", map(asdict, detail.pools), _POOL_COLUMNS)
    _print_part("held, but not offered any more", map(asdict, detail.strays), "kind name holder detail")
    oddities = cast("Iterable[str]", (detail.inventory or {}).get("oddities", ()))
    _print_part("left out of what the host tells", ({"detail": oddity} for oddity in oddities), "detail")
    _print_part("instances by property", map(asdict, detail.statistics), "property value #amount")


def _print_part(title: str, rows: Iterator[dict[str, object]], spec: str) -> None:
    found = list(rows)
    if found:
        console.print_line(f"\n{title}:")
        console.print_rows(found, spec, as_json=False)


def _print_past(past: PastNode, *, as_json: bool) -> None:
    if as_json:
        console.print_document(asdict(past), as_json=True)
        return
    console.print_document({"node": past.node, "at": past.at}, as_json=False)
    _print_part("used", ({"resource": name, "used": used} for name, used in past.used.items()), "resource #used")
    holdings = ({"instance": instance, **asdict(held)} for instance, held in past.holdings.items())
    _print_part("held", holdings, "instance charge pins devices")
