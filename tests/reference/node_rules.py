"""The rules of nodes and of audits, as the reference model knows them."""

from __future__ import annotations

from datetime import datetime

from tests.reference.ledger import Guest, Held, Place, Reference, Ruling, Verdict, refuse
from tests.reference.room import Json


def node_put(ref: Reference, command: Json, _now: datetime) -> Ruling:
    pushed, set_by_policy = command.get("inventory") or {}, command.get("policy", {})
    if pushed.get("custom", {}).keys() & set_by_policy.get("custom", {}).keys():
        return refuse("invalid_request")

    def settle(_outcome: Json) -> None:
        node = command["node"]
        before = ref.places.get(node)
        inventory = command.get("inventory") or (before.inventory if before else None)
        failed = before.failed_builds if before else 0
        ref.places[node] = Place(command.get("hypervisor"), command.get("policy", {}), inventory, failed)
        ref.look(node)

    return Verdict("applied"), settle


def node_remove(ref: Reference, command: Json, _now: datetime) -> Ruling:
    node = command["node"]
    if node not in ref.places:
        return refuse("node_unknown")
    holders = [ref.guests[name] for name in ref.holders(node)]
    orphans = [guest for guest in holders if guest.role("orphan")]
    if holders and not command.get("force"):
        return refuse("node_in_use")

    def remove(_outcome: Json) -> None:
        for guest in orphans:
            guest.release()
        for guest in holders:
            if guest in orphans:
                continue
            lost = guest.on(node)
            guest.holds = [held for held in guest.holds if held.node != node]
            if guest.role("move_destination") is not None:
                guest.stranded = lost[0].shape
            elif guest.holds:
                guest.move = None
                guest.holds[0].role = "active"
            else:
                guest.move = None
                guest.stranded = guest.stranded or lost[0].shape
        del ref.places[node]

    return Verdict("applied"), remove


def audit(ref: Reference, command: Json, _now: datetime) -> Ruling:
    """Charge what runs and nobody ever claimed; give up that charge once it runs no more."""
    node = command["node"]
    if node not in ref.places:
        return refuse("node_unknown")
    if ref.places[node].hypervisor is None:
        return refuse("invalid_request")
    if node in ref.world.silent:
        return refuse("hypervisor_unreachable")

    def repair(_outcome: Json) -> None:
        if not command.get("repair"):
            return
        running = {name for (where, name), state in ref.world.domains.items() if where == node and state == "running"}
        for name in ref.holders(node):
            if ref.guests[name].role("orphan") is not None and name not in running:
                ref.guests[name].release()
        for name in running - ref.guests.keys():
            held = Held(node, "orphan", {}, {"vcpus": 1, "memory_mib": 64}, set(), set())
            ref.hold(Guest(), name, held)

    return Verdict("applied"), repair
