"""Nodes between the database and the decisions: read, remembered by generation, written."""

from __future__ import annotations

from collections import OrderedDict
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pydantic_core import from_json, to_json

from schemas import Inventory, Policy
from worker.accounting.host.compiled import build_host
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Node
from worker.engine.ports import LedgerConflict
from worker.ledger.statements import bound, statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    import asyncpg

    from worker.accounting.host.compiled import Host
    from worker.accounting.state.view import View
    from worker.ledger.statements import Connection

_REMEMBERED: Final = 20_000


class NodeCache:
    """Nodes as the last commit left them, the least recently used forgotten first.

    A node is taken out while a batch changes it and put back only once that
    batch is committed: what a failed batch made of it is never seen again.
    """

    def __init__(self, size: int = _REMEMBERED) -> None:
        self._nodes: OrderedDict[str, Node] = OrderedDict()
        self._size = size

    def take(self, name: str, node_id: int, generation: int, stamp: int) -> Node | None:
        """The node, if it is remembered in this generation.

        A node that was removed and came back has another id. After a fail-over that
        lost commits a generation may come again, with another stamp.
        """
        node = self._nodes.pop(name, None)
        mark = (node_id, generation, stamp)
        return node if node is not None and (node.id, node.generation, node.stamp) == mark else None

    def put(self, node: Node) -> None:
        """Remember a node as it was committed."""
        self._nodes[node.name] = node
        if len(self._nodes) > self._size:
            self._nodes.popitem(last=False)

    def forget(self) -> None:
        """Forget all of them: another server may answer next, and it may have lost what this one committed."""
        self._nodes.clear()


async def load_nodes(connection: Connection, ids: Sequence[int]) -> list[Node]:
    """Read the whole state of nodes."""
    return [_node(row) for row in await connection.fetch(statement("load_nodes"), ids)]


async def walk_nodes(
    pool: asyncpg.Pool, names: Sequence[str] | None = None, *, page: int = 200
) -> AsyncIterator[list[Node]]:
    """All nodes, or those of these names, by name with their whole state; each page as it was at one moment."""
    after = ""
    while True:
        async with pool.acquire() as connection:
            rows = await connection.fetch(statement("node_ids"), after, names, page)
            found = await load_nodes(connection, [row["id"] for row in rows])
        yield found
        if len(rows) < page:
            return
        after = rows[-1]["name"]


async def load_hosts(
    connection: Connection, answered: Mapping[str, UUID], nodes: Mapping[str, Node]
) -> dict[UUID, str]:
    """Read which nodes the machines are that answered for nodes; one that answered as before is not looked up."""
    known = {name: node.host_uuid for name, node in nodes.items()}
    fresh = [host for name, host in answered.items() if host != known.get(name)]
    rows = await connection.fetch(statement("host_owners"), fresh) if fresh else ()
    return {row["host_uuid"]: row["name"] for row in rows}


def _node(row: asyncpg.Record) -> Node:
    policy, inventory, host = _profile(row["policy"], row["inventory"], row["hypervisor"] is not None)
    return Node(
        name=row["name"],
        policy=policy,
        occupancy=Occupancy(
            dict(zip(row["counters"], row["used"], strict=True)),
            {int(cpu): UUID(holder) for cpu, holder in from_json(row["pinned"] or "{}").items()},
            {address: UUID(holder) for address, holder in from_json(row["held"] or "{}").items()},
        ),
        generation=row["generation"],
        stamp=row["stamp"],
        id=row["id"],
        hypervisor=row["hypervisor"],
        host_uuid=row["host_uuid"],
        labels=from_json(row["labels"]),
        inventory=inventory,
        host=host,
        failed_builds=row["failed_builds"],
        parked=row["parked"],
        reachable=row["reachable"],
        observed_at=row["observed_at"],
    )


@lru_cache(maxsize=4096)
def _profile(policy: str, inventory: str | None, observed: bool) -> tuple[Policy, Inventory | None, Host | None]:  # noqa: FBT001 - a cache key
    """Profiles are immutable, and nodes of one kind have the same: compiled once for all of them."""
    parsed = Policy.model_validate_json(policy)
    if inventory is None:
        return parsed, None, None
    stored = Inventory.model_validate_json(inventory)
    return parsed, stored, build_host(stored, parsed, observed=observed)


async def rename_nodes(connection: Connection, view: View) -> None:
    """Give nodes that are stored their new names, one after the other: a name may be free only once another is left.

    Raises:
        LedgerConflict: not as much is parked for a new name as was counted.
    """
    for one in view.renamed:
        if one.id is None:
            continue
        found = await connection.fetchrow(*bound("rename_node", id=one.id, former=one.former, name=one.name))
        node = view.nodes.get(one.name)
        if found is not None and node is not None and node.id == one.id and found["waiting"] != node.parked:
            raise LedgerConflict(f"what is parked for {one.name} changed while it was put")


async def note_former_names(connection: Connection, view: View) -> None:
    """Keep which names the nodes had that are renamed, once they are all stored under their new ones."""
    former = {one.former: view.former[one.former] for one in view.renamed if one.former in view.former}
    if former:
        await connection.execute(statement("note_former_names"), list(former), list(former.values()))


async def write_profiles(connection: Connection, nodes: Sequence[Node]) -> None:
    """Store new nodes, and new settings and inventories of those that are there.

    Raises:
        LedgerConflict: not as much is parked for a new node as was counted.
    """
    for node in nodes:
        capacity = to_json({name: _capacity(node.host, name) for name in node.host.capacity} if node.host else {})
        profile = {
            "hypervisor": node.hypervisor,
            "policy": node.policy.model_dump_json(exclude_defaults=True),
            "inventory": None if node.inventory is None else node.inventory.model_dump_json(exclude_defaults=True),
            "capacity": capacity.decode(),
            "host_uuid": node.host_uuid,
            "labels": to_json(node.labels).decode(),
        }
        if node.id is None:
            new = bound("put_node", name=node.name, generation=node.generation, **profile)
            [added] = await connection.fetch(*new)
            if added["waiting"] != node.parked:
                raise LedgerConflict(f"what is parked for {node.name} changed while it was put")
            node.id = added["node_id"]
        else:
            await connection.execute(*bound("put_profile", node_id=node.id, **profile))
        node.profile_changed = False


def _capacity(host: Host, name: str) -> dict[str, int]:
    known = host.capacity[name]
    return {"total": known.total, "reserved": known.reserved, "capacity": known.capacity}
