"""The tests that need a GPU, and a report: python -m tests.gpu [--report FILE.json] [PYTEST OPTIONS].

Whatever else is missing on the machine (Ray, webdataset, a network), what can be tested is; what cannot is skipped and
the report says why. Without a GPU nothing is tested, and that is an error.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

NOTHING_TESTED = 3
NEEDED = ("torch", "numpy", "PIL", "click", "pydantic", "yaml", "safetensors", "diffusers", "pytest")


class Report:
    """Gathers what became of each test, as a plugin of pytest."""

    def __init__(self) -> None:
        self.tests: list[dict[str, Any]] = []

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Note the phase that tells: the call, or what kept it from being made."""
        if report.when != "call" and report.outcome == "passed":
            return
        told: dict[str, Any] = {"test": report.nodeid.rpartition("::")[2], "outcome": report.outcome}
        if report.outcome != "passed":
            told["reason"] = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)[-4000:]
        self.tests.append({**told, "seconds": round(report.duration, 3), "figures": dict(report.user_properties)})


def machine() -> dict[str, Any]:
    """The card, and what works on it."""
    import torch

    import zipbatch

    about = torch.cuda.get_device_properties(0)
    return {
        "card": about.name,
        "cards": torch.cuda.device_count(),
        "compute_capability": f"{about.major}.{about.minor}",
        "memory_gib": round(about.total_memory / 1024**3, 1),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "python": platform.python_version(),
        "zipbatch": zipbatch.__version__,
    }


def _unfit() -> str | None:
    """Why no test can be made here; None where some can."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        return f"{sys.executable} lacks {', '.join(missing)}"
    import torch

    if torch.cuda.is_available():
        return None
    build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built for CPUs alone"
    return f"no CUDA device that torch {torch.__version__} ({build}) can use"


def main() -> int:
    """Run the tests, write the report; pytest's exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--report", type=Path, default=Path("gpu-report.json"), metavar="FILE")
    arguments, others = parser.parse_known_args()
    if (reason := _unfit()) is not None:
        print(f"{reason}: nothing was tested", file=sys.stderr)
        return NOTHING_TESTED
    import pytest

    report = Report()
    code = int(pytest.main(["-m", "gpu", "-p", "no:cacheprovider", str(Path(__file__).parent), *others], [report]))
    arguments.report.write_text(json.dumps({"machine": machine(), "exit_code": code, "tests": report.tests}, indent=2))
    print(f"{arguments.report}: {len(report.tests)} tests")
    return code


if __name__ == "__main__":
    sys.exit(main())
