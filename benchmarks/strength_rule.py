"""How well the strength rule of ``zipbatch tune`` does on attacks that it was not tuned on.

    python benchmarks/strength_rule.py --store pur/ --out rule.json \\
        --case shards/cifar10-badnets victims/badnets --case shards/cifar10-wanet victims/wanet

For each case the test splits are purified at every strength. The rule then sees the victim's answers on a sample of the
first half of the shards, in which only a share of the images carries the trigger, and chooses; CA and ASR of its choice
are measured on the second half, which it never saw. Each share is drawn several times.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zipbatch import atomic
from zipbatch.checkpoints import open_victim
from zipbatch.cluster import Workers
from zipbatch.datasets import ShardDataset, open_dataset
from zipbatch.metrics import choose_candidate, judge
from zipbatch.shards import read_shard
from zipbatch.stages.assets import EMBEDDED, embedded_prior
from zipbatch.stages.evaluate.job import EvaluateJob
from zipbatch.stages.evaluate.plan import plan_evaluate
from zipbatch.stages.evaluate.run import results
from zipbatch.stages.purify.job import PurifyJob
from zipbatch.stages.purify.plan import plan_purify
from zipbatch.stages.purify.request import PurifierRequest, PurifySettings
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.run import purify
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.stages.tune.sweep import candidates_around
from zipbatch.store import Store

Ints = npt.NDArray[np.int64]
SHARES = (0.5, 0.1, 0.05, 0.02, 0.0)


@dataclass(frozen=True)
class Answers:
    """``given`` int64 [1 + R, N]: without a defence, then at each strength; ``label``, ``original`` int64 [N]."""

    given: Ints
    label: Ints
    original: Ints


def half_of(dataset: ShardDataset, split: str, number: int, shards: int | None) -> ShardDataset:
    """One half of the shards of a split, no more than ``shards`` of it."""
    all_ = dataset.split(split)
    middle = len(all_) // 2
    chosen = (all_[:middle], all_[middle:])[number][:shards]
    return replace(dataset, name=f"{dataset.name}-{split}-{number}", shards=chosen)


def answers_of(part: ShardDataset, victim: Path, candidates: Sequence[PurifierSpec], store: Store) -> Answers:
    """Purify with every candidate and ask the victim."""
    references = []
    for spec in candidates:
        done = purify(
            plan_purify(
                PurifyJob(
                    dataset=part, spec=spec, store=store, workers=Workers(), settings=PurifySettings(splits=part.splits)
                )
            )
        )
        references.append(f"{part.name}@{done.version}")
    plan = plan_evaluate(
        EvaluateJob(
            victims=(open_victim(victim),), dataset=part, data_label=part.name, purified=tuple(references), store=store
        )
    )
    given: dict[str, Ints] = {}
    for result in results(plan, keep_answers=True):
        given[result.name] = np.stack([form for form in result.answers[0] if form is not None])
    samples = [sample for shard in part.shards for sample in read_shard(shard.path)]
    return Answers(
        np.concatenate([given[shard.name] for shard in part.shards], axis=1),
        np.array([sample.label() for sample in samples], np.int64),
        np.array([sample.original_label() for sample in samples], np.int64),
    )


def draws(clean: Answers, stamped: Answers, *, images: int, share: float, count: int) -> Iterator[Ints]:
    """``count`` samples of so many images, of which ``share`` carry the trigger."""
    for number in range(count):
        rng = np.random.default_rng([number, int(1000 * share)])
        triggered = round(share * images)
        chosen = rng.permutation(clean.given.shape[1])
        rest = chosen[triggered:images] if len(chosen) >= images else chosen[: images - triggered]
        yield np.concatenate([stamped.given[:, chosen[:triggered]], clean.given[:, rest]], axis=1)


def outcomes(case: str, victim: Path, asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """One row for each share: what was seen and chosen, and what the choice is worth on the other half."""
    prior = embedded_prior() if asked.prior == EMBEDDED else Path(asked.prior)
    request = PurifierRequest(preset=asked.preset, precision=asked.precision)
    candidates, own = candidates_around(purifier_spec(request, prior), ())
    exponents = [candidate.settings.model_dump()["guidance_exponent"] for candidate in candidates]
    dataset, store = open_dataset([case]), Store(asked.store)
    parts = [
        answers_of(half_of(dataset, split, number, asked.shards), victim, candidates, store)
        for number in (0, 1)
        for split in ("test", "test_poisoned")
    ]
    seen, (clean, stamped) = parts[:2], parts[2:]
    others = stamped.original != stamped.label
    ca = [float((given == clean.label).mean()) for given in clean.given]
    asr = [float((given == stamped.label)[others].mean()) for given in stamped.given]
    classes = len(dataset.classes or [])
    for share in SHARES:
        chosen, suspects, estimates = [], [], []
        for sample in draws(*seen, images=asked.images, share=share, count=asked.draws):
            found = judge(sample[0], sample[1:], classes=classes)
            chosen.append(choose_candidate(found, own=own, limit=0.02))
            suspects.append(found.suspect)
            estimates.append(
                [np.nan if candidate.residual is None else candidate.residual for candidate in found.candidates]
            )
        target = int(stamped.label[0])
        yield {
            "case": Path(case).name,
            "share": share,
            "target_found": float(np.mean([suspect == target for suspect in suspects])),
            "other_class_accused": float(np.mean([suspect not in {None, target} for suspect in suspects])),
            "chosen": [exponents[choice] for choice in chosen],
            "ca": float(np.mean([ca[1 + choice] for choice in chosen])),
            "asr": float(np.mean([asr[1 + choice] for choice in chosen])),
            "worst_asr": float(np.max([asr[1 + choice] for choice in chosen])),
            "exponents": exponents,
            "estimated_asr": np.nanmean(estimates, axis=0).tolist() if any(s is not None for s in suspects) else None,
            "true_asr": asr[1:],
            "true_ca": ca[1:],
            "undefended_ca": ca[0],
        }


def line(row: dict[str, Any]) -> str:
    """A row of the table in the documentation."""
    shares = (f"{row[name]:.0%}" for name in ("share", "target_found", "other_class_accused"))
    measures = (f"{row[name]:.3f}" for name in ("undefended_ca", "ca", "asr", "worst_asr"))
    median = f"{np.median(row['chosen']):g}"
    return f"| {' | '.join([row['case'], *shares, median, *measures])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", nargs=2, action="append", required=True, metavar=("STAGED", "VICTIM"))
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default=EMBEDDED)
    parser.add_argument("--preset", default="balanced")
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--shards", type=int, help="of each half of a split, at most")
    parser.add_argument("--images", type=int, default=500, help="in each sample that the rule sees")
    parser.add_argument("--draws", type=int, default=20)
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    sys.stdout.write(
        "| case | triggered | target found | other accused | exponent | CA before | CA | ASR | worst ASR |\n"
    )
    sys.stdout.write(f"{'|---' * 9}|\n")
    for case, victim in asked.case:
        for row in outcomes(case, Path(victim), asked):
            rows.append(row)
            sys.stdout.write(line(row) + "\n")
            sys.stdout.flush()
        atomic.write_json(asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
