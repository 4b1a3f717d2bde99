"""The state machine: every kind of command, in any order, with everything that goes wrong around it."""

# ruff: noqa: FBT001 - Hypothesis passes what it draws by name

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import ClassVar
from uuid import UUID

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.model.fleet import NODES, OBSERVED, RENAMED, SETTINGS, SHAPES
from tests.model.path import AnyPath, CommandPath, ModelLedger
from tests.reference.ledger import Guest

PARK_DEADLINE = 600.0
STRAY = 7
"""The draw for which a command names any instance, also one that is deleted or was never claimed."""
ISSUED = "2026-01-01T00:00:00Z"

_node = st.sampled_from(NODES)
_instance = st.integers(0, 15)
_shape = st.integers(0, len(SHAPES) - 1)
_rarely = st.integers(0, 15).map(lambda n: n == 7)
_revision = st.one_of(st.none(), st.none(), st.integers(1, 30))
_lease = st.one_of(st.none(), st.none(), st.integers(30, 90))
_small = st.integers(0, 7)


def _inhabited(machine: LedgerMachine) -> bool:
    return any(guest.holds or guest.stranded for guest in machine.guests.values())


def _moving(machine: LedgerMachine) -> bool:
    return any(guest.move for guest in machine.guests.values())


def _plays_hypervisors(machine: LedgerMachine) -> bool:
    return machine.path.plays_hypervisors


def _leased(machine: LedgerMachine) -> bool:
    return any(held.lease for guest in machine.guests.values() for held in guest.holds)


def _waiting(machine: LedgerMachine) -> bool:
    return bool(machine.path.bench.parked)


class LedgerMachine(RuleBasedStateMachine):
    """Drives a ledger and holds it against the reference model after every step."""

    steps: ClassVar[int] = 0
    eager: ClassVar[bool] = True
    """Whether two of three commands are decided before the next is sent, or one."""

    def new_path(self) -> AnyPath:
        """A path on a ledger of its own, with all hypervisors answering."""
        path = CommandPath(self.new_ledger(), PARK_DEADLINE)
        path.bench.world.inventories = dict.fromkeys((*NODES, *RENAMED.values()), OBSERVED[0])
        return path

    def new_ledger(self) -> ModelLedger:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.path = self.new_path()
        self.ids = 0

    @property
    def guests(self) -> dict[str, Guest]:
        return self.path.bench.reference.guests

    def teardown(self) -> None:
        self.path.ledger.close()

    @initialize(
        settings=st.lists(_small, min_size=len(NODES), max_size=len(NODES)),
        shapes=st.lists(st.tuples(_node, _shape, _lease), min_size=2, max_size=6),
    )
    def register(self, settings: list[int], shapes: list[tuple[str, int, int | None]]) -> None:
        """Most runs begin with all nodes in their first settings, and with some instances on them."""
        for node, number in zip(NODES, settings, strict=True):
            variants = SETTINGS[node]
            self.send("node.put", node, **variants[number if number < len(variants) else 0])
        self.path.work(20)
        for node, shape, lease in [("gamma", 0, None), ("gamma", 0, 60), *shapes]:
            self.claim(node, 0, shape, lease, None, dry=False)
            self.path.work(20)

    def send(self, kind: str, node: str, **fields: object) -> None:
        self.ids += 1
        self.path.publish({
            "version": 1, "id": str(UUID(int=10_000 + self.ids)), "kind": kind, "node": node, "issued_at": ISSUED,
            **{name: value for name, value in fields.items() if value is not None},
        })  # fmt: skip
        if bool(self.ids % 3) is self.eager:
            self.path.work(8)

    def someone(self, number: int) -> str:
        """An instance that is there; now and then any."""
        there = [name for name, guest in self.guests.items() if guest.holds or guest.stranded]
        return there[number % len(there)] if there and number != STRAY else str(UUID(int=1 + number % 4))

    def tenants(self, node: str) -> list[str]:
        return [name for name, guest in self.guests.items() if guest.on(node)]

    def newcomer(self, number: int, taken: int = 0) -> str:
        """The first instance that may be claimed; now and then any."""
        guests = self.guests
        if number == STRAY:
            return str(UUID(int=1 + taken))
        if number == STRAY + 1:
            return str(UUID(int=101 + taken))
        names = (str(UUID(int=n)) for n in range(1, len(guests) + taken + 2))
        free = [name for name in names if name not in guests or not (guests[name].deleted or guests[name].holds)]
        return free[min(taken, len(free) - 1)]

    def home(self, instance: str, node: str) -> str:
        """Where an instance is, if it is anywhere; commands that name another node are sent as well."""
        guest = self.guests.get(instance)
        return guest.holds[-1].node if guest is not None and guest.holds else node

    @rule(node=_node, number=_small)
    def put_node(self, node: str, number: int) -> None:
        variants = SETTINGS[node]
        self.send("node.put", node, **variants[number % len(variants)])

    @rule(node=_node, number=_small, shape=_shape, back=_small)
    def rename_node(self, node: str, number: int, shape: int, back: int) -> None:
        """A host gets another name and is claimed on under both; mostly it has its own again in the end."""
        places, spare = self.path.bench.reference.places, RENAMED[node]
        if not self.path.plays_hypervisors:  # whole workers answer the two names in no order that is known
            return
        for old, new in [(node, spare), (spare, node)][spare in places :][: 1 + bool(back)]:
            self.world_follows(old, new)
            variants = SETTINGS[node]
            self.send("node.put", new, replaces=old, **variants[number % len(variants)])
            for name in (old, new):
                self.send("claim", name, instance=self.newcomer(number), project="blue", **SHAPES[shape])

    def world_follows(self, old: str, new: str) -> None:
        """What answers under a host's new name is what answered under the old one."""
        world = self.path.bench.world
        world.inventories[new] = world.inventories[old]
        world.silent = world.silent - {new} | ({new} if old in world.silent else set())
        gone = {key for key in world.domains if key[0] == new}
        found = {(new, name): state for (where, name), state in world.domains.items() if where == old}
        world.domains = {key: state for key, state in world.domains.items() if key not in gone} | found

    @rule(node=_node, really=_small, force=st.booleans())
    def remove_node(self, node: str, really: int, force: bool) -> None:
        if really in {4, 5} or not force:
            self.send("node.remove", node, force=force)

    @rule(node=_node, number=_instance, shape=_shape, lease=_lease, revision=_revision, dry=_rarely)
    def claim(self, node: str, number: int, shape: int, lease: int | None, revision: int | None, dry: bool) -> None:
        self.send(
            "claim", node, instance=self.newcomer(number), project="blue" if number % 2 else "red",
            lease_seconds=lease, revision=revision, dry_run=dry or None, **SHAPES[shape],
        )  # fmt: skip

    @rule(nodes=st.permutations(NODES), number=_instance, shape=_shape, lease=_lease)
    def claim_the_first_that_fits(self, nodes: list[str], number: int, shape: int, lease: int | None) -> None:
        self.send(
            "claim", nodes[0], instance=self.newcomer(number), project="blue", candidates=nodes[1:],
            lease_seconds=lease, **SHAPES[shape],
        )  # fmt: skip

    @rule(number=_instance, members=st.lists(st.tuples(_node, _shape), min_size=1, max_size=3))
    def claim_together(self, number: int, members: list[tuple[str, int]]) -> None:
        instances = [
            {"instance": self.newcomer(number, taken), "node": node, **SHAPES[shape]}
            for taken, (node, shape) in enumerate(members)
        ]
        if len({member["instance"] for member in instances}) == len(instances):
            self.send("claim", members[0][0], project="red", instances=instances)

    @precondition(_inhabited)
    @rule(
        node=_node, number=_instance, shape=_shape, destination=st.one_of(st.none(), _node), lease=_lease,
        astray=_rarely, immediate=st.booleans(), revision=_revision,
    )  # fmt: skip
    def resize(
        self, node: str, number: int, shape: int, destination: str | None, lease: int | None, astray: bool,
        immediate: bool, revision: int | None,
    ) -> None:  # fmt: skip
        instance = self.someone(number)
        at = node if astray else self.home(instance, node)
        now = immediate and destination in {None, at}
        self.send(
            "resize", at, instance=instance, destination=destination, revision=revision,
            mode="immediate" if now else "prepare", lease_seconds=None if now else lease, **SHAPES[shape],
        )  # fmt: skip

    @precondition(_inhabited)
    @rule(
        node=_node, number=_instance, destination=_node, lease=_lease,
        reason=st.sampled_from(["live", "cold", "evacuate"]),
    )  # fmt: skip
    def migrate(self, node: str, number: int, destination: str, lease: int | None, reason: str) -> None:
        instance = self.someone(number)
        at = self.home(instance, node)
        if at != destination:
            self.send("migrate", at, instance=instance, destination=destination, reason=reason, lease_seconds=lease)

    @precondition(_moving)
    @rule(
        node=_node, number=_instance, kind=st.sampled_from(["confirm", "revert"]), astray=_rarely, revision=_revision,
        old_side=st.booleans(),
    )  # fmt: skip
    def end(self, node: str, number: int, kind: str, astray: bool, revision: int | None, old_side: bool) -> None:
        moving = [name for name, guest in self.guests.items() if guest.move]
        instance = moving[number % len(moving)]
        held = self.guests[instance].holds
        at = held[0].node if old_side and held else self.home(instance, node)
        self.send(kind, node if astray else at, instance=instance, revision=revision)

    @precondition(_inhabited)
    @rule(node=_node, number=_instance, kind=st.sampled_from(["abort", "confirm", "revert"]), really=_small)
    def abort(self, node: str, number: int, kind: str, really: int) -> None:
        if really < 4:
            instance = self.someone(number)
            self.send(kind, self.home(instance, node), instance=instance)

    @precondition(_inhabited)
    @rule(
        node=_node, number=_instance, revision=_revision,
        state=st.sampled_from([None, "building", "active", "shelved_offloaded", "active"]),
        task=st.sampled_from([None, "spawning"]),
    )  # fmt: skip
    def update(self, node: str, number: int, revision: int | None, state: str | None, task: str | None) -> None:
        instance = self.someone(number)
        self.send("update", self.home(instance, node), instance=instance, state=state, task=task, revision=revision)

    @precondition(_inhabited)
    @rule(node=_node, number=_instance, really=_small, verify=st.sampled_from([None, True, False]), revision=_revision)
    def delete(self, node: str, number: int, really: int, verify: bool | None, revision: int | None) -> None:
        if really > 2:
            return
        instance = self.someone(number)
        self.send("delete", self.home(instance, node), instance=instance, verify=verify, revision=revision)

    @rule(seconds=st.integers(-30, 90))
    def claim_for_a_moment_only(self, seconds: int) -> None:
        """A command that expires, perhaps before it was sent."""
        until = datetime.now(UTC) if self.path.ledger.may_poison else self.path.ledger.now()
        self.send(
            "claim", "alpha", instance=str(UUID(int=1)), project="blue",
            expires_at=(until + timedelta(seconds=seconds)).isoformat(), **SHAPES[0],
        )  # fmt: skip

    @rule(which=st.integers(0, 10_000))
    def deliver_twice(self, which: int) -> None:
        if self.path.sent:
            self.path.publish_body(self.path.sent[-1 - which % min(20, len(self.path.sent))])

    @rule(which=st.integers(0, 10_000))
    def deliver_on_a_wrong_shard(self, which: int) -> None:
        """Mostly what was sent last, which may be parked, or still on its way."""
        if self.path.sent:
            self.path.misroute(self.path.sent[-1 - which % min(5, len(self.path.sent))])

    @precondition(_waiting)
    @rule(number=_small, retrieved=st.booleans())
    def replace_the_node_that_does_not_answer(self, number: int, retrieved: bool) -> None:
        """Remove it with all it holds, and put it again while what was parked for it is being answered."""
        self.send("node.remove", "gamma", force=True)
        if retrieved:
            self.path.work(20)
            self.probe("gamma")
        self.put_node("gamma", number)

    @rule(which=st.integers(0, 10_000), node=_node)
    def reuse_an_id(self, which: int, node: str) -> None:
        if self.path.sent:
            import json

            before = json.loads(self.path.sent[-1 - which % len(self.path.sent)])
            self.path.publish_body(json.dumps({
                "version": 1, "id": before["id"], "kind": "node.remove", "node": node, "issued_at": ISSUED,
                "expires_at": "2999-01-01T00:00:00Z",
            }).encode())  # fmt: skip
            self.path.work(5)

    @precondition(lambda machine: machine.path.dead)
    @rule(which=_small)
    def replay_a_dead_letter(self, which: int) -> None:
        self.path.replay(which)

    @rule(limit=st.integers(1, 24))
    def work(self, limit: int) -> None:
        self.path.work(limit)

    @rule(limit=st.integers(1, 24))
    def work_more(self, limit: int) -> None:
        self.path.work(limit)

    @rule(limit=st.integers(1, 12), turn=st.integers(0, 2), before=st.booleans())
    def die(self, limit: int, turn: int, before: bool) -> None:
        """The worker dies just before or just after a commit; another one goes on."""
        self.path.work(limit, dies_in=turn if before else None, dies_after=None if before else turn)

    @rule(seconds=st.sampled_from([1, 45, 100, 700, -20]))
    def let_time_pass(self, seconds: int) -> None:
        self.path.ledger.advance(seconds)

    @precondition(_plays_hypervisors)
    @rule(repair=st.booleans(), astray=_rarely, node=_node)
    def audit(self, repair: bool, astray: bool, node: str) -> None:
        self.send("audit", node if astray else "gamma", repair=repair)

    @precondition(_plays_hypervisors)
    @rule(number=st.integers(101, 103), state=st.sampled_from(["running", "absent"]))
    def run_what_nobody_claimed(self, number: int, state: str) -> None:
        self.path.work(20)
        self.path.bench.world.domains["gamma", str(UUID(int=number))] = state

    @precondition(_leased)
    @rule(later=st.booleans(), seen=st.booleans())
    def notice_leases(self, later: bool, seen: bool) -> None:
        """Perhaps once they ran out, and perhaps with the domains that confirm them."""
        if later:
            self.path.work(20)
            self.path.ledger.advance(100)
        if seen and self.path.plays_hypervisors:
            self.path.work(20)
            self.path.bench.world.domains |= {("gamma", instance): "running" for instance in self.tenants("gamma")}
        self.path.expire_leases()

    @precondition(_waiting)
    @rule(number=_instance, destination=st.sampled_from(["alpha", "beta"]))
    def evacuate(self, number: int, destination: str) -> None:
        """Leave the node that does not answer, behind which commands wait already."""
        if there := self.tenants("gamma"):
            instance = there[number % len(there)]
            self.send("migrate", "gamma", instance=instance, destination=destination, reason="evacuate")
            self.send("confirm", "gamma", instance=instance)

    @precondition(_plays_hypervisors)
    @rule(silent=st.booleans())
    def lose_or_find_the_hypervisor(self, silent: bool) -> None:
        """While it is lost, something waits for it at once."""
        self.path.work(20)
        self.path.bench.world.silent = {"gamma"} if silent else set()
        if silent:
            self.send("claim", "gamma", instance=self.newcomer(0), project="red", **SHAPES[0])

    @precondition(_plays_hypervisors)
    @rule(number=st.integers(0, len(OBSERVED) - 1))
    def change_the_hardware(self, number: int) -> None:
        self.path.work(20)
        self.path.bench.world.inventories["gamma"] = OBSERVED[number]

    @precondition(_plays_hypervisors)
    @rule(number=_instance, state=st.sampled_from(["absent", "running", "shut_off"]))
    def start_or_stop_a_domain(self, number: int, state: str) -> None:
        self.path.work(20)
        there = self.tenants("gamma") or [self.someone(number)]
        self.path.bench.world.domains["gamma", there[number % len(there)]] = state

    @precondition(_waiting)
    @rule(node=_node)
    def probe(self, node: str) -> None:
        place = self.path.bench.reference.places.get(node)
        self.path.probe(node, place.hypervisor if place is not None else None)

    @invariant()
    def the_state_is_as_the_model_says(self) -> None:
        type(self).steps += 1
        self.path.bench.inspect(self.path.ledger.snapshot())
