"""The operators' page says what is so. Run as a program, it writes the tables of settings and metrics anew."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

from worker.gauges import show
from worker.settings import describe_settings
from worker.telemetry.metrics import Metrics

PAGE = Path(__file__).parents[2] / "deploy" / "operations.md"


def settings_table() -> str:
    rows = ["| variable | default | meaning |", "|---|---|---|"]
    for setting in describe_settings():
        default = f"`{setting.default}`" if setting.default else ""
        rows.append(f"| `{setting.variable}` | {default} | {setting.description} |")
    return "\n".join(rows) + "\n"


def metrics() -> dict[str, Any]:
    """Every metric of the product's own, by its name on the page of metrics."""

    async def of_a_worker() -> list[Any]:
        parts = Metrics()
        show(parts, MagicMock(), MagicMock(), MagicMock(), MagicMock())
        return list(parts.registry.collect())

    own = {family.name + "_total" * (family.type == "counter"): family for family in asyncio.run(of_a_worker())}
    return {name: family for name, family in sorted(own.items()) if name.startswith("nodeledger_")}


def metrics_table() -> str:
    rows = ["| metric | type | meaning |", "|---|---|---|"]
    rows += [f"| `{name}` | {family.type} | {family.documentation} |" for name, family in metrics().items()]
    return "\n".join(rows) + "\n"


def with_tables(page: str) -> str:
    for name, table in (("settings", settings_table), ("metrics", metrics_table)):
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        before, rest = page.split(begin)
        page = before + begin + table() + end + rest.split(end, 1)[1]
    return page


def test_the_tables_of_settings_and_metrics_are_those_of_the_program() -> None:
    page = PAGE.read_text()
    assert page == with_tables(page), f"run `python {Path(__file__).name}` in its folder"


def test_every_metric_that_is_named_exists() -> None:
    named = set(re.findall(r"`(nodeledger_[a-z_]+)`", PAGE.read_text()))
    roles = {"nodeledger_worker", "nodeledger_reader", "nodeledger_owner"}
    assert named - roles == set(metrics())


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
