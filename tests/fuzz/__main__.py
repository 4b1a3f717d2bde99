"""`python -m tests.fuzz TARGET`: a coverage-guided run of one target, or of all of them in turn.

    .venv/bin/uv sync --all-extras --group fuzz      # atheris, which the ordinary environment does without
    .venv/bin/python -m tests.fuzz deliveries --seconds 600
    .venv/bin/python -m tests.fuzz all --seconds 600 --work /var/tmp/fuzz

What it learns stays in the working folder, so that the next run goes on from
there. An input that breaks a promise is left there too, and goes into
`tests/fuzz/corpus/TARGET` together with its fix.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from logging import CRITICAL
from pathlib import Path
from typing import Final

_LONGEST: Final = {"commands": 8192, "hosts": 16_384}
_DICTIONARY: Final = Path(__file__).with_name("words.dict")
_SLOWEST_SECONDS: Final = 30
_MEMORY_MIB: Final = 2048
NAMES: Final = ("streams", "frames", "deliveries", "letters", "commands", "hosts", "domains")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=[*NAMES, "all"])
    parser.add_argument("--seconds", type=int, default=60, help="for each target (default 60)")
    parser.add_argument("--work", type=Path, help="where what was learnt is kept (default: a new folder)")
    return parser


def _fuzz(name: str, seconds: int, work: Path) -> None:
    """Fuzz in this process, which the fuzzer ends."""
    import atheris
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(CRITICAL))  # what is refused is no news
    with atheris.instrument_imports(include=["worker", "schemas"]):
        from tests.fuzz.seeds import seeds
        from tests.fuzz.targets import TARGETS

    corpus = work / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds(name)):
        (corpus / f"seed-{number:03}").write_bytes(seed)
    options = {
        "max_total_time": seconds,
        "max_len": _LONGEST.get(name, 4096),
        "timeout": _SLOWEST_SECONDS,
        "rss_limit_mb": _MEMORY_MIB,
        "dict": _DICTIONARY,
        "artifact_prefix": f"{work}/{name}-",
        "print_final_stats": 1,
    }
    arguments = [f"-{option}={value}" for option, value in options.items()]
    atheris.Setup([name, *arguments, str(corpus)], TARGETS[name])
    atheris.Fuzz()


def main() -> int:
    """Run; exit status 1 if anything was found."""
    given = _parser().parse_args()
    work = given.work or Path(tempfile.mkdtemp(prefix="nodeledger-fuzz-"))
    if given.target != "all":
        _fuzz(given.target, given.seconds, work)
        return 0
    again = [sys.executable, "-m", "tests.fuzz", "--seconds", str(given.seconds), "--work", str(work)]
    ended = {name: subprocess.run([*again, name], check=False).returncode for name in NAMES}
    sys.stdout.write(
        "".join(f"{name}: {'found something' if status else 'nothing'}\n" for name, status in ended.items())
    )
    return 1 if any(ended.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
