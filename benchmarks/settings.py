"""Compare settings over attacks: purify staged datasets with each and let their victims answer.

    python benchmarks/settings.py benchmarks/grids/presets.yaml --store pur/ --out results.json \\
        --case shards/cifar10-badnets victims/badnets --case shards/cifar10-wanet victims/wanet

``--half first`` takes the first half of the shards of each split, ``--half second`` the others, so that settings can be
chosen on one half and reported on the other. The store is the resume: what is purified already is not purified again,
and the clean split, which all attacks share, is purified once.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.checkpoints import open_victim
from zipbatch.cluster import WorkerRequest
from zipbatch.config import read_config
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.diffusion import timesteps
from zipbatch.report.curve import StrengthLine, strength_curve
from zipbatch.results import dump
from zipbatch.stages.assets import EMBEDDED, embedded_prior
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.plan import plan_evaluate
from zipbatch.stages.evaluate.run import evaluate
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.request import Precision, PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.run import purify
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import Store

MEASURES = ("ca", "asr", "pa", "ra")


def settings_of(grid: dict[str, object]) -> Iterator[dict[str, Any]]:
    """Each entry of ``settings``, once for every combination of the values in its ``vary``."""
    entries = grid["settings"]
    assert isinstance(entries, list)
    for entry in entries:
        varied = entry.pop("vary", {})
        for values in itertools.product(*varied.values()):
            yield {**entry, **dict(zip(varied, values, strict=True))}


def part_of(dataset: ShardDataset, half: str, shards: int | None) -> ShardDataset:
    """Half of the shards of each split, or all of them, and no more than ``shards`` of each."""
    chosen = []
    for split in ("test", "test_poisoned"):
        all_ = dataset.split(split)
        middle = len(all_) // 2
        chosen += {"first": all_[:middle], "second": all_[middle:], "both": all_}[half][:shards]
    return replace(dataset, name=f"{dataset.name}-{half}", shards=tuple(chosen))


def spec_of(setting: dict[str, Any], prior: Path, precision: str) -> PurifierSpec:
    """A preset by name with single settings over it."""
    assigned = {key: value for key, value in setting.items() if key != "preset"}
    asked: Precision = "bfloat16" if precision == "bfloat16" else "float32"
    return purifier_spec(PurifierRequest(preset=setting["preset"], set=assigned, precision=asked), prior)


def calls_of(spec: PurifierSpec) -> int:
    """Network calls an image."""
    settings = spec.settings.model_dump()
    if "steps" not in settings:
        return 0
    return len(timesteps(spec.prior.training_steps if spec.prior else 1000, settings["steps"], settings["start_step"]))


def shares(row: dict[str, Any]) -> dict[str, str]:
    """The measures as text with half their interval."""
    texts = {}
    for name in MEASURES:
        low, high = row[f"{name}_ci95"]
        texts[name] = f"{row[name]:.3f} ±{(high - low) / 2:.3f}"
    return texts


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The table for a README."""
    lines = ["| case | defence | calls | CA | ASR | PA | RA | PSNR dB |", "|---|---|---|---|---|---|---|---|"]
    for row in rows:
        text = shares(row)
        psnr = "" if row["psnr_poisoned_db"] is None else f"{row['psnr_poisoned_db']:.1f}"
        cells = [row["case"], row["name"], str(row["calls"]), *(text[name] for name in MEASURES), psnr]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def curve(rows: Sequence[dict[str, Any]], title: str, suffix: str) -> bytes:
    """CA and ASR of each case against the guidance exponent."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        own = [row for row in rows if row["case"] == case]
        points = [row for row in own if "guidance_exponent" in row["setting"]]
        lines.append(
            StrengthLine(
                name=case,
                exponents=[row["setting"]["guidance_exponent"] for row in points],
                ca=[row["ca"] for row in points],
                ca_ci95=[row["ca_ci95"] for row in points],
                asr=[row["asr"] for row in points],
                asr_ci95=[row["asr_ci95"] for row in points],
                undefended_ca=own[0]["ca"],
            )
        )
    return strength_curve(title, lines, suffix=suffix)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("--case", nargs=2, action="append", required=True, metavar=("STAGED", "VICTIM"))
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default=EMBEDDED)
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--half", default="both", choices=["first", "second", "both"])
    parser.add_argument("--shards", type=int, help="of each split, at most")
    parser.add_argument("--curve", type=Path, help="PNG, PDF or SVG of CA and ASR against the guidance exponent")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--gpus", type=int)
    asked = parser.parse_args()
    prior = embedded_prior() if asked.prior == EMBEDDED else Path(asked.prior)
    specs = [(s, spec_of(s, prior, asked.precision)) for s in settings_of(read_config(asked.grid))]
    workers = WorkerRequest(gpus=asked.gpus, workers=asked.workers).resolve()
    store = Store(asked.store)
    rows: list[dict[str, Any]] = []
    for number, (setting, spec) in enumerate(specs):
        for staged, victim in asked.case:
            dataset = part_of(open_dataset([staged]), asked.half, asked.shards)
            started = time.monotonic()
            done = purify(plan_purify(PurifyJob(dataset=dataset, spec=spec, store=store, workers=workers)))
            reference = f"{dataset.name}@{done.version}"
            job = EvaluateJob(
                victims=(open_victim(Path(victim)),),
                dataset=dataset,
                data_label=staged,
                purified=(reference,),
                store=store,
                workers=workers,
            )
            measured = evaluate(plan_evaluate(job))
            case = {"case": Path(staged).name, "half": asked.half, "precision": asked.precision}
            if number == 0:
                rows.append({**case, "name": "no defence", "calls": 0, "setting": {}, **dump(measured[0])})
            name = setting["preset"] if len(setting) == 1 else measured[1].settings
            rows.append({**case, "name": name, "calls": calls_of(spec), "setting": setting, **dump(measured[1])})
            took = time.monotonic() - started
            sys.stdout.write(f"{case['case']:20} {measured[1].settings or '':50} {shares(rows[-1])} {took:.0f} s\n")
            sys.stdout.flush()
            atomic.write_json(asked.out, {"rows": rows})
    if asked.curve is not None:
        title = f"CIFAR-10 test set ({asked.half} half, JPEG copy), exponents of {specs[0][0]['preset']}"
        atomic.write_bytes(asked.curve, curve(rows, title, asked.curve.suffix))
    sys.stdout.write(markdown(sorted(rows, key=lambda row: str(row["case"]))) + "\n")


if __name__ == "__main__":
    main()
