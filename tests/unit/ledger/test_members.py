from __future__ import annotations

from collections import Counter
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from worker.ledger.members import balanced

MEMBERS = [UUID(int=number) for number in range(12)]
owners = st.dictionaries(st.integers(0, 40), st.none() | st.sampled_from(MEMBERS))
alive = st.sets(st.sampled_from(MEMBERS), min_size=1)
shards = st.integers(1, 32)


@given(owners, alive, shards)
def test_every_shard_has_an_owner_and_no_owner_has_two_more_than_another(
    owners: dict[int, UUID | None], alive: set[UUID], shards: int
) -> None:
    plan = balanced(owners, alive, shards)
    counts = Counter(dict.fromkeys(alive, 0)) + Counter()
    counts.update(plan.values())
    assert list(plan) == list(range(shards))
    assert set(plan.values()) <= alive
    held = [counts[member] for member in alive]
    assert max(held) - min(held) <= 1


@given(owners, alive, shards)
def test_no_more_shards_change_hands_than_must(owners: dict[int, UUID | None], alive: set[UUID], shards: int) -> None:
    before = Counter(owner for shard, owner in owners.items() if shard < shards and owner in alive)
    share, extra = divmod(shards, len(alive))
    most = sum(min(count, share) for count in before.values())
    most += min(extra, sum(count > share for count in before.values()))
    plan = balanced(owners, alive, shards)
    assert sum(owners.get(shard) == owner for shard, owner in plan.items()) == most


@given(owners, alive, shards)
def test_every_worker_comes_to_the_same_plan_and_keeps_it(
    owners: dict[int, UUID | None], alive: set[UUID], shards: int
) -> None:
    plan = balanced(owners, alive, shards)
    assert balanced(dict(reversed(owners.items())), sorted(alive, reverse=True), shards) == plan
    assert balanced(plan, alive, shards) == plan


def test_without_members_nothing_is_assigned() -> None:
    assert balanced({0: MEMBERS[0]}, [], 4) == {}
