from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

from schemas import Policy
from tests.unit.accounting.test_drift import running
from tests.unit.engine.doubles import audit
from worker.accounting.rules.drift import Difference
from worker.accounting.rules.looks import Look
from worker.accounting.state.occupancy import Occupancy
from worker.accounting.state.view import Facts, Node, Observation, Sight, View
from worker.engine.batch import Decider
from worker.engine.drift import Found, drift_change
from worker.engine.intake import Item, fingerprint
from worker.engine.ports import ReadSet
from worker.engine.result import Result, read_keys

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADDRESS = "test:///default"
STRANGER = UUID(int=5)
SIGHT = Sight(1, ADDRESS, [running(STRANGER)])


def look() -> Item:
    command = Look(version=1, id=uuid4(), node="cn-1", issued_at=NOW)
    return Item(command, fingerprint(command))


def decided(items: list[Item], facts: Facts, parked: int = 0) -> Result:
    known = Node("cn-1", Policy(), Occupancy(), hypervisor=ADDRESS, id=1, generation=1, parked=parked)
    loaded = ReadSet(View({"cn-1": known}), {}, NOW)
    return Decider(loaded, facts, 0.0, timedelta(days=1), lambda _uri: None).run(items)


def test_a_look_is_kept_as_drift_and_is_no_command_that_anybody_could_read_of() -> None:
    item = look()
    result = decided([item], Facts(sights={"cn-1": SIGHT}))
    assert [one.instance for one in result.changes.drift.begun] == [STRANGER]
    assert (result.changes.answers, result.changes.parked, result.outcomes) == ([], [], [])
    assert result.done == [item]
    assert result.settled() == []


def test_a_look_at_a_silent_host_leaves_nothing_but_that_it_does_not_answer() -> None:
    facts = Facts({"cn-1": Observation(NOW, ADDRESS, None)}, sights={"cn-1": Sight(1, ADDRESS, None)})
    result = decided([look()], facts)
    assert not result.changes
    assert not result.inquiries
    assert not decided([look()], facts, parked=3).changes


def test_a_look_whose_listing_is_too_old_asks_in_the_order_of_the_node() -> None:
    first, second = look(), audit("cn-1")
    result = decided([first, second], Facts(sights={"cn-1": Sight(0, ADDRESS, [])}))
    assert result.inquiries["cn-1"].addresses == {"cn-1": ADDRESS}
    assert result.held == [first, second]


def test_an_audit_does_not_take_what_was_listed_for_a_look_for_what_is_there_now() -> None:
    ahead = decided([look(), audit("cn-1")], Facts(sights={"cn-1": SIGHT}))
    in_turn = decided([look(), audit("cn-1")], Facts(listings={"cn-1": [running(STRANGER)]}))
    for result in (ahead, in_turn):
        assert set(result.inquiries) == {"cn-1"}
        assert len(result.done) == 1


def test_all_that_a_look_compares_is_loaded() -> None:
    want = read_keys([look()], Facts(sights={"cn-1": SIGHT}))
    assert (want.members, want.instances) == ({"cn-1"}, {STRANGER})


def test_what_is_known_of_something_passed_over_stays() -> None:
    other = UUID(int=6)
    known = [Difference("cn-1", one, "ghost", "", id=one.int) for one in (STRANGER, other)]
    found = Found([], frozenset({("ghost", STRANGER)}))
    change = drift_change({"cn-1": known}, {"cn-1": found})
    assert (change.begun, change.kept, change.ended) == ([], [], [known[1]])
