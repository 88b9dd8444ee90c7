"""What planning costs when nearly all is done: many shards whose digests are known, a parent version that lists them.

    python benchmarks/store_scale.py plan --shards 1000000
    python benchmarks/store_scale.py rerun --shards 1000 --new 10

``plan`` makes a staged dataset of so many shards (empty files: a plan reads none) with its manifest, and a store whose
latest version has them all but ``--new``; then a process of its own plans the purification. With ``--bare`` there is no
manifest: the store remembers the digests, by size and time. ``rerun`` purifies real
shards of two tiny images with ``blur`` in this process, again, and again with new ones. Printed are wall and CPU
seconds without the start-up of Python and torch, and the peak of the resident memory (theirs: ``imports_mib``).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

_PLAN_IMAGES = 100


def measured(what: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """What it returns, and the wall and CPU seconds that it took."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = what()
    return result, {
        "wall_s": round(time.perf_counter() - wall, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _touch(path: str) -> None:
    os.mknod(path, 0o644 | stat.S_IFREG)


def _peak_mib() -> float:
    """Of this process alone; ``getrusage`` has that of the one that started it, too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def make_plan_case(root: Path, shards: int, new: int, *, bare: bool) -> None:
    """A dataset of ``shards`` in ``root/data`` and a store in ``root/pur`` that has all but the last ``new``."""
    from zipbatch.datasets.staged import MANIFEST, SHARD_LIST, SplitCounts, StagedAttack, StagedManifest
    from zipbatch.stages.purify.publish import publish_version
    from zipbatch.stages.purify.request import PurifierRequest
    from zipbatch.stages.purify.resolve import purifier_spec
    from zipbatch.storage import stamp
    from zipbatch.store import RememberedInputs, Store, VersionRow

    data, store = root / "data", Store(root / "pur")
    data.mkdir()
    store.prepare()
    for number in range(256):
        (root / "pur" / "objects" / f"{number:02x}").mkdir(exist_ok=True)
    rows: list[VersionRow] = []
    with (data / SHARD_LIST).open("w") as listing:
        for number in range(shards):
            name, sha256 = f"test-{number:07d}.tar", _digest(f"in {number}")
            _touch(f"{data}/{name}")
            row = {"split": "test", "shard": name, "samples": _PLAN_IMAGES, "sha256": sha256, "bytes": 0}
            listing.write(json.dumps(row, sort_keys=True, separators=(",", ":")) + "\n")
            if number < shards - new:
                output = _digest(f"out {number}")
                _touch(f"{root}/pur/objects/{output[:2]}/{output}.tar")
                rows.append(VersionRow("test", name, output, sha256, _PLAN_IMAGES))
    manifest = StagedManifest(
        classes=["a", "b"],
        image_size=32,
        splits={"test": SplitCounts(shards=shards, samples=shards * _PLAN_IMAGES)},
        attack=StagedAttack(
            name="none",
            source="",
            params={},
            target=None,
            poison_rate=None,
            poisoned_train_samples=None,
            trigger_sha256=None,
        ),
        seed=None,
        source_sha256={},
        options={},
        zipbatch="0",
    )
    if bare:
        (data / SHARD_LIST).unlink()
        inputs = RememberedInputs(store, "data")
        for row in rows:
            inputs.remember(data / row.shard, row.input, stamp(data / row.shard))
        inputs.save()
    else:
        (data / MANIFEST).write_text(manifest.model_dump_json())
    identity = purifier_spec(PurifierRequest(purifier="blur")).identity
    publish_version(store, "data", identity, rows=rows, tag=None, parent=None, started_ns=time.time_ns())


def plan(root: Path) -> dict[str, Any]:
    """Plan the case of ``make_plan_case`` in this process."""
    import zipbatch.stages.purify.run  # noqa: F401 (with torch)

    before = _peak_mib()
    spent, (shards, tasks) = plan_once(root)
    memory = {"peak_mib": round(_peak_mib()), "imports_mib": round(before)}
    return {"shards": shards, "to_compute": tasks, **spent, **memory}


def plan_once(root: Path) -> tuple[dict[str, Any], tuple[int, int]]:
    """Seconds of opening the dataset and of planning; shards in all and to compute."""
    from zipbatch.cluster import Workers
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.purify.job import PurifyJob
    from zipbatch.stages.purify.plan import plan_purify
    from zipbatch.stages.purify.request import PurifierRequest
    from zipbatch.stages.purify.resolve import purifier_spec
    from zipbatch.store import Store

    spec = purifier_spec(PurifierRequest(purifier="blur"))
    dataset, opening = measured(lambda: open_dataset([str(root / "data")]))
    request = PurifyJob(dataset=dataset, spec=spec, store=Store(root / "pur"), workers=Workers())
    made, planning = measured(lambda: plan_purify(request))
    total = {name: round(opening[name] + planning[name], 2) for name in opening}
    return {"open": opening, "plan": planning, **total}, (len(made.shards), len(made.tasks))


def rerun(root: Path, shards: int, new: int) -> dict[str, Any]:
    """Purify ``shards``, purify again, add ``new`` and purify: what was computed and what each took."""
    from zipbatch.cluster import Workers
    from zipbatch.datasets import open_dataset
    from zipbatch.stages.purify.job import PurifyJob
    from zipbatch.stages.purify.plan import plan_purify
    from zipbatch.stages.purify.request import PurifierRequest
    from zipbatch.stages.purify.resolve import purifier_spec
    from zipbatch.stages.purify.run import purify as run
    from zipbatch.store import Store

    spec, store = purifier_spec(PurifierRequest(purifier="blur")), Store(root / "pur")

    def once() -> dict[str, Any]:
        def work() -> Any:
            return run(
                plan_purify(
                    PurifyJob(dataset=open_dataset([str(root / "in")]), spec=spec, store=store, workers=Workers())
                )
            )

        summary, spent = measured(work)
        return {"computed": summary.computed, "reused": summary.reused, **spent}

    write_shards(root / "in", range(shards))
    first, again = once(), once()
    write_shards(root / "in", range(shards, shards + new))
    return {"first": first, "no_change": again, "with_new": once()}


def write_shards(folder: Path, numbers: range, *, images: int = 2, size: int = 8) -> None:
    """Shards of a few tiny images of noise."""
    from zipbatch.images import encode_png
    from zipbatch.shards import Sample, ShardWriter

    for number in numbers:
        rng = np.random.default_rng(number)
        with ShardWriter(folder) as writer:
            for index in range(images):
                pixels = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
                writer.write(Sample(f"{number:07d}_{index}", {"png": encode_png(pixels)}))
            writer.finish()
            writer.publish(folder / f"day-{number:07d}.tar")


def main() -> None:
    """Make the case, measure, print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["plan", "rerun", "plan-only"])
    parser.add_argument("--shards", type=int)
    parser.add_argument("--new", type=int, default=10)
    parser.add_argument("--bare", action="store_true", help="no manifest: digests are remembered")
    parser.add_argument("--root", type=Path, help="where the case is made; default: a temp folder")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        root = arguments.root or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if arguments.what == "plan-only":
            result = plan(root)
        elif arguments.what == "rerun":
            result = rerun(root, arguments.shards or 1000, arguments.new)
        else:
            _, making = measured(
                lambda: make_plan_case(root, arguments.shards or 1_000_000, arguments.new, bare=arguments.bare)
            )
            command = [sys.executable, __file__, "plan-only", "--root", str(root)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 (ourselves)
            result = {"making": making, **json.loads(done.stdout)}
        print(json.dumps(result, indent=2))  # noqa: T201


if __name__ == "__main__":
    main()
