"""Outcomes, one after the other in the order of their decisions, held against the reference model."""

from __future__ import annotations

from datetime import datetime

from tests.reference.ledger import Reference, Verdict
from tests.reference.room import Json
from tests.reference.rules import rule


def judge(ref: Reference, command: Json, outcome: Json, *, waited: bool = False) -> Verdict:
    """Hold an outcome against what the command should have come to, and take over what it changed.

    Raises:
        AssertionError: it should have come to something else, or chose what was not to be had.
    """
    verdict, effect = rule(ref, command, datetime.fromisoformat(outcome["at"]), waited=waited)
    _compare(command, verdict, outcome)
    if outcome["status"] == "applied":
        effect(outcome)
    return verdict


def _compare(command: Json, verdict: Verdict, outcome: Json) -> None:
    status, codes = outcome["status"], {reason["code"] for reason in outcome["reasons"]}
    what = f"{command} came to {outcome}, expected {verdict}"
    if verdict.crowded and status == "rejected":
        assert codes, what
        assert codes >= verdict.codes, what
        return
    assert status == ("parked" if verdict.status == "parked aside" else verdict.status), what
    assert codes == verdict.codes, what
    if verdict.node is not None:
        assert outcome["node"] == verdict.node, what
