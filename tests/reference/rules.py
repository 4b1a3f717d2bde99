"""The rules of every kind of command, as the reference model knows them.

Each rule says what the command should come to, and what it changes if it is
applied. A rule changes nothing itself before the outcome is known.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tests.reference.ledger import Guest, Held, Reference, Ruling, Verdict, assignments, lease_of, nothing, refuse
from tests.reference.node_rules import audit, node_put, node_remove
from tests.reference.room import Json, plain_charge

_SHAPE = ("resources", "topology", "devices", "traits")


def rule(ref: Reference, command: Json, now: datetime, *, waited: bool = False) -> Ruling:
    """What a command should come to that nothing holds back; ``waited`` tells one that others overtook."""
    expires = command.get("expires_at")
    if expires is not None and datetime.fromisoformat(expires) <= now:
        return refuse("expired")
    kind = command["kind"]
    if kind in {"node.put", "node.remove", "claim", "expire", "audit"}:
        verdict, effect = RULINGS[kind](ref, command, now)
    else:
        verdict, effect = _of_instance(ref, command, now, waited=waited and kind == "delete")
    if command.get("dry_run"):
        return Verdict(
            "rejected" if verdict.status == "parked" else verdict.status, verdict.codes, verdict.node
        ), nothing
    return verdict, effect


def _of_instance(ref: Reference, command: Json, now: datetime, *, waited: bool) -> Ruling:
    guest = ref.guests.get(command["instance"])
    kind, node, revision = command["kind"], command["node"], command.get("revision")
    if guest is not None and guest.is_past(revision) and not waited:
        return refuse("stale")
    if kind != "delete":
        if guest is not None and guest.deleted:
            return refuse("superseded")
        lost = guest is not None and (not guest.holds or (guest.stranded is not None and not guest.claims()))
        homeless = lost and kind in {"migrate", "update"}
        if node not in ref.places and not homeless:
            return refuse("node_unknown")
        if guest is None or not (homeless or any(held.node == node for held in guest.claims() or guest.holds)):
            return refuse("instance_unknown")
    verdict, effect = RULINGS[kind](ref, command, now)

    def with_revision(outcome: Json) -> None:
        effect(outcome)
        if revision is not None:
            after = ref.guests[command["instance"]]
            after.revision = max(revision, after.revision or 0)

    return verdict, with_revision


def _claim(ref: Reference, command: Json, now: datetime) -> Ruling:
    members = command.get("instances") or [command]
    codes = {code for member in members for code in _unclaimable(ref, member)}
    if codes:
        return Verdict("rejected", codes), nothing
    if "instances" in command:
        return _claim_group(ref, command, now)
    instance, tried = command["instance"], set()
    for node in (command["node"], *command.get("candidates", ())):
        passed_over = command.get("candidates") and node in ref.held_up & ref.places.keys()
        codes = {"hypervisor_unreachable"} if passed_over else ref.fit(node, instance, command)
        if not codes:
            break
        tried |= codes
    else:
        alone = not command.get("candidates")
        return Verdict("parked" if alone and "hypervisor_unreachable" in tried else "rejected", tried), nothing

    def take(outcome: Json) -> None:
        _claimed(ref, command, command, node, outcome["assignment"], now)

    return Verdict("applied", node=node), take


def _claim_group(ref: Reference, command: Json, now: datetime) -> Ruling:
    """All or none; what is refused is worked out on a trial that takes one member after the other.

    Which CPUs and devices a member would be given is the ledger's choice: where
    members want some of one node, more may be refused than each alone would be.
    """
    codes: set[str] = set()
    trial = ref.supposing()
    choosy = any(member.get("topology") or member.get("devices") for member in command["instances"])
    for member in command["instances"]:
        node = member["node"]
        short = trial.fit(node, member["instance"], member)
        if not short and not choosy:
            charge = plain_charge(member, ref.places[node].policy)
            trial.hold(Guest(), member["instance"], Held(node, "active", member, charge, set(), set()))
        codes |= short

    def take(outcome: Json) -> None:
        given = assignments(outcome)
        for member in command["instances"]:
            _claimed(ref, command, member, member["node"], given[member["instance"]], now)

    return Verdict("rejected" if codes else "applied", codes, crowded=choosy and _crowded(command)), take


def _crowded(command: Json) -> bool:
    """Whether members of a group may stand in each other's way."""
    nodes = [member["node"] for member in command["instances"]]
    return len(set(nodes)) < len(nodes)


def _claimed(ref: Reference, command: Json, member: Json, node: str, assignment: Json, now: datetime) -> None:
    instance = member["instance"]
    shape = {name: member[name] for name in _SHAPE if name in member}
    held = ref.take(node, instance, "active", shape, assignment, lease_of(command, now))
    guest = ref.guests.setdefault(instance, Guest())
    guest.project, guest.state, guest.task, guest.stranded = command["project"], None, None, None
    guest.revision = member.get("revision", guest.revision)
    guest.holds = []
    ref.hold(guest, instance, held)


def _unclaimable(ref: Reference, member: Json) -> set[str]:
    guest = ref.guests.get(member["instance"])
    if guest is None:
        return set()
    if guest.deleted:
        return {"superseded"}
    if guest.is_past(member.get("revision")):
        return {"stale"}
    adoptable = all(held.role == "orphan" and held.node == member["node"] for held in guest.holds)
    return set() if adoptable else {"instance_exists"}


def _resize(ref: Reference, command: Json, now: datetime) -> Ruling:
    if not ref.guests[command["instance"]].claims():
        return refuse("instance_unknown")
    shape = {name: command[name] for name in _SHAPE if name in command}
    return _prepare(ref, command, shape, command.get("destination") or command["node"], now)


def _migrate(ref: Reference, command: Json, now: datetime) -> Ruling:
    guest = ref.guests[command["instance"]]
    active = guest.role("active")
    shape = active.shape if active is not None else guest.stranded
    if guest.role("move_destination") is None and shape is None:
        return refuse("instance_unknown")
    changed: Json = {name: command[name] for name in ("topology", "devices") if name in command}
    return _prepare(ref, command, {**(shape or {}), **changed}, command["destination"], now)


def _prepare(ref: Reference, command: Json, shape: Json, destination: str, now: datetime) -> Ruling:
    instance = command["instance"]
    guest = ref.guests[instance]
    if guest.role("move_destination") is not None:
        return refuse("move_in_progress")
    codes = ref.fit(destination, instance, shape)
    if codes:
        waits = "hypervisor_unreachable" in codes and destination == command["node"]
        return Verdict("parked" if waits else "rejected", codes), nothing

    def take(outcome: Json) -> None:
        held = ref.take(destination, instance, "move_destination", shape, outcome["assignment"], lease_of(command, now))
        if command.get("mode") == "immediate":
            held.role, held.lease = "active", guest.claims()[0].lease
            guest.holds = guest.orphans()
            ref.hold(guest, instance, held)
            return
        for old in guest.claims():
            old.role = "move_source"
        guest.holds = [*guest.claims(), *guest.orphans(but_on=destination)]
        ref.hold(guest, instance, held)
        guest.move = command.get("reason", "resize")

    return Verdict("applied"), take


def _confirm(ref: Reference, command: Json, _now: datetime) -> Ruling:
    guest = ref.guests[command["instance"]]
    new = guest.role("move_destination")
    if new is None and all(held.lease is None for held in guest.holds):
        return refuse("no_move")

    def settle(_outcome: Json) -> None:
        if new is not None:
            guest.holds, guest.move, guest.stranded = [new, *guest.orphans()], None, None
            new.role = "active"
        guest.claims()[0].lease = None

    return Verdict("applied"), settle


def _revert(ref: Reference, command: Json, _now: datetime) -> Ruling:
    guest = ref.guests[command["instance"]]
    if guest.role("move_destination") is None:
        return refuse("no_move")
    return Verdict("applied"), lambda _outcome: _undo(guest)


def _undo(guest: Guest) -> None:
    old = guest.role("move_source")
    guest.holds, guest.move = guest.orphans(), None
    if old is not None:
        old.role = "active"
        guest.holds.append(old)


def _abort(ref: Reference, command: Json, _now: datetime) -> Ruling:
    guest = ref.guests[command["instance"]]

    arriving = any(held.role == "move_destination" for held in guest.on(command["node"]))

    def release(_outcome: Json) -> None:
        if arriving:
            _undo(guest)
        else:
            guest.release()
            guest.state = guest.task = None
        ref.places[command["node"]].failed_builds += 1

    return Verdict("applied"), release


def _update(ref: Reference, command: Json, _now: datetime) -> Ruling:
    guest = ref.guests[command["instance"]]

    def report(_outcome: Json) -> None:
        for held in guest.on(command["node"]):
            held.lease = None
        guest.state = command.get("state") or guest.state
        guest.task = command.get("task")
        guest.os_type = command.get("os_type") or guest.os_type
        if command.get("state") in {"shelved_offloaded", "deleted"} and command.get("task") != "spawning":
            guest.release()
        if command.get("state") == "active" and command["node"] in ref.places:
            ref.places[command["node"]].failed_builds = 0

    return Verdict("applied"), report


def _delete(ref: Reference, command: Json, _now: datetime) -> Ruling:
    instance = command["instance"]
    guest = ref.guests.get(instance, Guest())
    codes, silent_here = set(), False
    for node in {held.node for held in guest.holds}:
        place = ref.places[node]
        verify = command.get("verify")
        if place.hypervisor is None or not (place.policy.get("verify_deletes", True) if verify is None else verify):
            continue
        state = ref.state_of(node, instance)
        if state is None:
            codes.add("hypervisor_unreachable")
            silent_here |= node == command["node"]
        elif state == "running":
            codes.add("domain_still_running")
    if codes:
        return Verdict("parked" if silent_here else "parked aside", codes), nothing

    def dead_letter(_outcome: Json) -> None:
        gone = ref.guests.setdefault(instance, Guest())
        gone.release()
        gone.holds, gone.deleted = [], True

    return Verdict("applied"), dead_letter


def _expire(ref: Reference, command: Json, now: datetime) -> Ruling:
    """A lease ran out: a claim is released and a prepared move undone, unless the domain shows that it is used.

    While a move is open only its own lease counts; with its end the claim's does again.
    """
    instance = command["instance"]
    guest = ref.guests[instance]
    due = [held for held in guest.holds if held.lease is not None and held.lease <= now]
    new = guest.role("move_destination")
    assert new in due if new is not None else due, "a lease expired that had not run out"
    old = guest.role("move_source") or guest.role("active")
    seen = [held for held in guest.claims() if _seen(ref, instance, held, new, old)]

    def end(_outcome: Json) -> None:
        claim = old if old in due else None
        if claim is not None and not seen:
            guest.release()
            return
        if claim is not None:
            claim.lease = None
        if new is not None and new in due:
            if new in seen:
                new.lease = None
            else:
                _undo(guest)

    return Verdict("applied"), end


def _seen(ref: Reference, instance: str, held: Held, new: Held | None, old: Held | None) -> bool:
    """Whether a domain proves that this side is in use: on one node, it only proves the old one."""
    if held is new and old is not None and old.node == new.node:
        return False
    place = ref.places[held.node]
    return place.hypervisor is not None and ref.state_of(held.node, instance) in {"running", "shut_off"}


RULINGS: dict[str, Callable[[Reference, Json, datetime], Ruling]] = {
    "node.put": node_put,
    "node.remove": node_remove,
    "claim": _claim,
    "resize": _resize,
    "migrate": _migrate,
    "confirm": _confirm,
    "revert": _revert,
    "abort": _abort,
    "update": _update,
    "delete": _delete,
    "audit": audit,
    "expire": _expire,
}
