"""Compares the product's decisions with Nova's over random cases; exit status 1 on any disagreement.

The truth is Nova's own order of cells, fit of one cell on another and network
test, without its cache, together with an exact device test. Where Nova's raw
answer (its own device test) differs from that truth, the case counts under the
defect that explains it:

``cache``                 Nova remembers which cells fit by an id that its search
                          changes, and so accepts and refuses wrongly; only told.
``devices in turn``       Nova serves requests one after the other and refuses if
                          an earlier one took what only a later one could use.
``counted before sorted`` Nova decides how near devices must be by counting
                          devices that it drops afterwards (physical functions,
                          vDPA, not live migratable).
``pinned twice``          With ``isolate``, Nova picks the emulator's CPU on a core that
                          others use in part, and then fails to take its siblings.
``functions together``    Nova's test grants a physical function beside its own
                          virtual functions; the allocation then fails.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import cases
import product

Json = dict[str, Any]
HERE = Path(__file__).parent


def cores_of(case: Json, cpus: list[int]) -> list[int]:
    """How many of the CPUs lie on each core they use."""
    core = {cpu: siblings[0] for cell in case["cells"] for siblings in cell["siblings"] for cpu in siblings}
    return sorted(Counter(core[cpu] for cpu in cpus).values())


def structure(case: Json, fit: Json | None) -> Any:
    """What must agree: the ids of CPUs need not, their number and how they share cores must."""
    if fit is None:
        return None
    return {
        "cells": [(c["cell"], c["page_size_kib"], cores_of(case, c["pins"]), len(c["reserved"])) for c in fit["cells"]],
        "usage": fit["usage"] if fit["cells"] and all(cell["pages"] for cell in case["cells"]) else None,
    }


def disagreement(case: Json, nova: Json, ours: Json) -> str | None:
    """In what the answers differ; None if they agree."""
    if "pinned_twice" in nova:
        return pinned_twice(case, ours)
    if "error" in nova:
        return None if ours["fit"] is None and ours["codes"] == ["invalid_request"] else f"nova: {nova['error']}"
    expected = structure(case, nova["fit"])
    if expected != structure(case, ours["fit"]):
        return f"expected {expected}"
    return None if ours["fit"] is None else flaw(case, nova, ours, expected)


def flaw(case: Json, nova: Json, ours: Json, expected: Json) -> str | None:
    """What is wrong with an arrangement of cells that both agree on."""
    if not nova["fit"].get("restored", True):
        return "nova does not restore its own usage"
    reference = nova["fit"]["devices"] if nova["raw"] and structure(case, nova["raw"]) == expected else None
    if reference is not None and placed(reference) != placed(ours["fit"]["devices"]):
        return f"expected devices on {reference}"
    return pinned_twice(case, ours) or invalid_devices(case, ours["fit"])


def placed(devices: list[list[int | None]]) -> list[list[str]]:
    """The cells of the devices for each request, in no particular order."""
    return [sorted(map(str, cells)) for cells in devices]


def pinned_twice(case: Json, ours: Json) -> str | None:
    """Whether CPUs are handed out that others have."""
    taken = {cpu for cell in case["cells"] for cpu in cell["pinned"]}
    fit = ours["fit"]
    return "pinned twice" if fit is not None and taken & set(fit["pinned"]) else None


def invalid_devices(case: Json, fit: Json) -> str | None:
    """Whether the devices handed out are the right number and exclude each other in no way."""
    parents = {device["address"]: device["parent"] for device in case["devices"]}
    addresses = fit["addresses"]
    if len(addresses) != sum(request["count"] for request in case["requests"]) or len(set(addresses)) != len(addresses):
        return "wrong number of devices"
    if any(parents[address] in addresses for address in addresses):
        return "a function beside its parent"
    return None


def defect(case: Json, nova: Json) -> str | None:
    """The known defect that makes Nova's raw answer differ from the truth."""
    if "pinned_twice" in nova:
        return "pinned twice"
    if "cached" in nova and nova["cached"] != (nova["raw"] and [cell["cell"] for cell in nova["raw"]["cells"]]):
        return "cache"
    if "error" in nova or structure(case, nova["fit"]) == structure(case, nova["raw"]):
        return "functions together" if nova.get("raw") and nova["raw"]["devices"] is None else None
    if nova["raw"] is not None and (nova["fit"] is None or nova["raw"]["devices"] is None):
        return "functions together"
    return "devices in turn" if len(case["requests"]) > 1 else "counted before sorted"


class Nova:
    """Nova in a process of its own."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, "-W", "ignore", str(HERE / "nova_process.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OS_NOVA_DISABLE_EVENTLET_PATCHING": "true"},
        )

    def answers(self, batch: list[Json]) -> list[Json]:
        stdin, stdout = self._pipes()
        with ThreadPoolExecutor(1) as writer:
            writing = writer.submit(self._write, stdin, batch)
            answers = [json.loads(stdout.readline()) for _ in batch]
            writing.result()
        return answers

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("nova has no pipes")
        return self.process.stdin, self.process.stdout

    @staticmethod
    def _write(stdin: IO[str], batch: list[Json]) -> None:
        stdin.writelines(json.dumps(case) + "\n" for case in batch)
        stdin.flush()

    def close(self) -> None:
        stdin, _ = self._pipes()
        stdin.close()
        self.process.wait()


def compare(nova: Nova, first: int, count: int, *, devices: bool) -> tuple[Counter[str], list[Json]]:
    """Compare ``count`` cases from seed ``first`` on."""
    tally: Counter[str] = Counter()
    failures: list[Json] = []
    for start in range(first, first + count, 200):
        batch = [cases.case_of(seed, devices=devices) for seed in range(start, min(start + 200, first + count))]
        for case, answer in zip(batch, nova.answers(batch), strict=True):
            ours = product.answer(case)
            tally["invalid" if "error" in answer else "accepted" if answer.get("fit") else "refused"] += 1
            if (known := defect(case, answer)) is not None:
                tally[f"nova's defect: {known}"] += 1
            if (difference := disagreement(case, answer, ours)) is not None:
                tally["DISAGREEMENTS"] += 1
                failures.append({"difference": difference, "case": case, "nova": answer, "ours": ours})
    return tally, failures


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--nova", required=True, help="the Python of Nova's environment")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--topology", type=int, default=20_000, help="cases over topology")
    parser.add_argument("--devices", type=int, default=10_000, help="cases over topology and devices")
    parser.add_argument("--show", type=int, default=3, help="how many disagreements to print in full")
    options = parser.parse_args()
    nova = Nova(options.nova)
    failed = 0
    for name, count, devices in (("topology", options.topology, False), ("devices", options.devices, True)):
        tally, failures = compare(nova, options.seed * 10**9, count, devices=devices)
        failed += len(failures)
        summary = ", ".join(f"{key} {number}" for key, number in sorted(tally.items()))
        sys.stdout.write(f"{name}: {count} cases from seed {options.seed}: {summary or 'none'}\n")
        for failure in failures[: options.show]:
            sys.stdout.write(json.dumps(failure) + "\n")
    nova.close()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
