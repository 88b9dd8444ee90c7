"""The whole campaign: ``python tests/fuzz/run.py --inputs 10000 [TARGET…]``, one process for each target.

Prints a table; exit 1 when there is a finding. Inputs that broke something are kept in ``--keep``.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEMORY_BYTES = 6 * 1024**3
"""Address space that a target's process may take: torch alone maps several GB of libraries."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--inputs", type=int, default=10_000, help="for each target [10000]")
    parser.add_argument("--first", type=int, default=0, help="number of the first input [0]")
    parser.add_argument("--keep", type=Path, default=None, metavar="DIR", help="where inputs that broke something go")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.alone:
        return _alone(asked.targets[0], asked.inputs, asked.first, asked.keep)
    from tests.fuzz.targets import TARGETS

    head = ("inputs", "read", "refused", "findings", "slowest s", "grown MB", "s")
    print(f"{'target':<16}" + "".join(f"{name:>10}" for name in head))
    bad = 0
    for name in asked.targets or TARGETS:
        command = [sys.executable, __file__, name, "--alone"]
        command += ["--inputs", str(asked.inputs), "--first", str(asked.first)]
        keep = [] if asked.keep is None else ["--keep", str(asked.keep)]
        ran = subprocess.run([*command, *keep], capture_output=True, text=True, check=False)
        bad += ran.returncode != 0
        print(ran.stdout or f"{name:<16} DIED with {ran.returncode}: {ran.stderr[-1500:]}", end="", flush=True)
    return 1 if bad else 0


def _alone(name: str, inputs: int, first: int, keep: Path | None) -> int:
    """One target in this process, which may take so much memory and no more."""
    from tests.fuzz.campaign import LIMIT_MB, run

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        result = run(name, Path(folder) / "fuzz", inputs=inputs, first=first)
        strangers = sorted({item.name for item in Path(folder).iterdir()} - {"fuzz"})
    findings = [f"input {found.index}: {found.how}" for found in result.findings]
    findings += [f"wrote {stranger}" for stranger in strangers]
    findings += [f"memory grew by {result.grown_mb:.0f} MB"] if result.grown_mb > LIMIT_MB else []
    refused = sum(result.refused.values())
    print(
        f"{name:<16}{result.inputs:>10}{result.accepted:>10}{refused:>10}{len(findings):>10}"
        f"{result.slowest_s:>10.2f}{result.grown_mb:>10.0f}{result.seconds:>10.0f}"
    )
    for line in findings[:20]:
        print(f"    {json.dumps(line)[1:-1]}")
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        for found in result.findings:
            (keep / f"{name}-{found.index}").write_bytes(found.data)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main())
