"""What the script that gives broker users their rights tells of rights that differ, with a stand-in for rabbitmqctl."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "deploy" / "broker-permissions"
CONTROL = """#!/bin/sh
case $1 in
    list_users) printf 'guest\\t[administrator]\\nbob\\t{tags}\\n' ;;
    list_user_permissions) printf '{permissions}' ;;
    list_user_topic_permissions) printf '{topics}' ;;
esac
"""
OWN = r"amq\\.gen-.*"
RIGHTS = rf"/\t^{OWN}$\t^(nodeledger\\.commands|{OWN})$\t^{OWN}$\n"
TOPICS = r"/\tnodeledger.outcomes\t^$\t^$\n"


def check(folder: Path, permissions: str = RIGHTS, topics: str = TOPICS, tags: str = "[]") -> tuple[int, list[str]]:
    control = folder / "control"
    control.write_text(CONTROL.format(permissions=permissions, topics=topics, tags=tags))
    control.chmod(0o755)
    done = subprocess.run(
        [SCRIPT, "--check", "producer", "bob"],
        env={"PATH": "/usr/bin:/bin", "RABBITMQCTL": str(control)}, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert not done.stderr
    return done.returncode, [line.partition(" ")[0] for line in done.stdout.splitlines()]


def test_a_user_with_the_rights_of_its_role_is_in_order(tmp_path: Path) -> None:
    assert check(tmp_path) == (0, [])


@pytest.mark.parametrize(
    ("differing", "told"),
    [
        ({"permissions": r"/\t.*\t.*\t.*\n"}, ["lacks", "has"]),
        ({"permissions": RIGHTS + r"other\t.*\t.*\t.*\n"}, ["has"]),
        ({"permissions": ""}, ["lacks"]),
        ({"topics": ""}, ["lacks"]),
        ({"topics": r"/\tnodeledger.outcomes\t^$\t.*\n"}, ["lacks", "has"]),
        ({"tags": "[management]"}, ["has"]),
        ({"tags": "[administrator]"}, ["has"]),
    ],
)
def test_whatever_differs_from_the_role_is_told(tmp_path: Path, differing: dict[str, str], told: list[str]) -> None:
    status, found = check(tmp_path, **differing)
    assert status == 1
    assert sorted(found) == sorted(told)
