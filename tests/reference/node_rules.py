"""The rules of nodes and of audits, as the reference model knows them."""

from __future__ import annotations

from datetime import datetime

from tests.reference.ledger import Guest, Held, Place, Reference, Ruling, Verdict, refuse
from tests.reference.room import Json, plain_charge


def node_put(ref: Reference, command: Json, _now: datetime) -> Ruling:
    pushed, set_by_policy = command.get("inventory") or {}, command.get("policy", {})
    twice = pushed.get("custom", {}).keys() & set_by_policy.get("custom", {}).keys()
    codes = {"invalid_request"} if twice else set()
    node, former = command["node"], command.get("replaces")
    if former is not None and node in ref.places and ref.renamed.get(former) == node:
        former = None
    if former is not None:
        codes |= _against_renaming(ref, former, node)
    if codes:
        return refuse(*codes)

    def settle(_outcome: Json) -> None:
        if former is not None:
            _rename(ref, former, node)
        before = ref.places.get(node)
        ref.renamed.pop(node, None)
        inventory = command.get("inventory") or (before.inventory if before else None)
        failed = before.failed_builds if before else 0
        ref.places[node] = Place(command.get("hypervisor"), command.get("policy", {}), inventory, failed)
        ref.look(node)

    return Verdict("applied"), settle


def _against_renaming(ref: Reference, former: str, node: str) -> set[str]:
    codes = {"node_unknown"} if former not in ref.places else set()
    waits = former in ref.places and former in ref.held_up
    return codes | ({"node_in_use"} if waits or node in ref.places else set())


def _rename(ref: Reference, former: str, node: str) -> None:
    """The node goes by another name, with everything that is held on it."""
    for there in ref.holders(former).values():
        for held in there:
            held.node = node
    ref.ever_on[node] = ref.ever_on.get(node, set()) | ref.ever_on.get(former, set())
    ref.places[node] = ref.places.pop(former)
    ref.renamed = {name: node if now == former else now for name, now in ref.renamed.items()} | {former: node}


def node_remove(ref: Reference, command: Json, _now: datetime) -> Ruling:
    node = command["node"]
    if node not in ref.places:
        return refuse("node_unknown")
    holders = [ref.guests[name] for name in ref.holders(node)]
    if holders and not command.get("force"):
        return refuse("node_in_use")

    def remove(_outcome: Json) -> None:
        for guest in holders:
            lost = [held for held in guest.on(node) if held.role != "orphan"]
            guest.holds = [held for held in guest.holds if held.node != node]
            if not lost:
                continue
            if guest.role("move_destination") is not None:
                guest.stranded = lost[0].shape
            elif guest.claims():
                guest.move = None
                guest.claims()[0].role = "active"
            else:
                guest.move = None
                guest.stranded = guest.stranded or lost[0].shape
        del ref.places[node]
        ref.renamed = {name: now for name, now in ref.renamed.items() if now != node}

    return Verdict("applied"), remove


def audit(ref: Reference, command: Json, _now: datetime) -> Ruling:
    """Charge what runs where nothing is claimed for it; give up that charge once it runs no more."""
    node = command["node"]
    if node not in ref.places:
        return refuse("node_unknown")
    if ref.places[node].hypervisor is None:
        return refuse("invalid_request")
    if node in ref.held_up or node in ref.world.silent:
        return refuse("hypervisor_unreachable")

    def repair(_outcome: Json) -> None:
        ref.look(node)
        if not command.get("repair"):
            return
        running = {name for (where, name), state in ref.world.domains.items() if where == node and state == "running"}
        for name in ref.holders(node):
            guest = ref.guests[name]
            if name not in running:
                guest.holds = [*guest.claims(), *guest.orphans(but_on=node)]
        for name in running:
            guest = ref.guests.get(name, Guest())
            if any(held.role != "orphan" for held in guest.on(node)):
                continue
            guest.holds = [*guest.claims(), *guest.orphans(but_on=node)]
            charge = plain_charge({"resources": {"vcpus": 1, "memory_mib": 64}}, ref.places[node].policy)
            ref.hold(guest, name, Held(node, "orphan", {}, charge, set(), set()))

    return Verdict("applied"), repair
