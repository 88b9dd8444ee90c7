"""How well ``zipbatch audit`` tells backdoored victims and triggered images, and how often it accuses clean samples.

    python benchmarks/audit_rule.py --store pur/ --out audit.json --clean cifar10-jpeg/test-000003.tar \\
        --preset fast --preset balanced --case embedded:badnets shards/badnets/test_poisoned-000000.tar

The images are purified once. The rule then sees the victim's answers on samples of them, in which a share carries the
trigger: those that do are drawn from the case's poisoned shard, the others from the clean ones, and no image is in a
sample twice. AUROC, and TPR where 1 % of the clean images score higher, are of the per-image score: triggered images of
other classes than the target against clean ones; F1 is of the images called suspects. A case of a clean victim says how
often one is accused.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zipbatch import atomic
from zipbatch.datasets import open_dataset
from zipbatch.metrics import Audit, audit
from zipbatch.shards import read_shard
from zipbatch.stages.assets import prior_path
from zipbatch.stages.evaluate.answers import Asking
from zipbatch.stages.evaluate.victims import find_victim
from zipbatch.stages.purify.request import PurifierRequest
from zipbatch.stages.purify.resolve import purifier_spec
from zipbatch.stages.purify.spec import PurifierSpec
from zipbatch.store import Store

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """``given`` int64 [1 + R, N]: as they came, then purified; ``shares`` float64 [N]: of 1, what the victim gives its
    answers on the images as they came; ``others`` bool [N]: not of the target in truth.
    """

    given: Ints
    shares: npt.NDArray[np.float64]
    keys: npt.NDArray[np.str_]
    others: npt.NDArray[np.bool_]
    target: int
    classes: int


def answers_of(shard: str, victim: str, specs: Sequence[PurifierSpec], store: Store) -> Answers:
    """Purify a shard in each way and ask the victim."""
    dataset = open_dataset([shard], name=f"audit-rule-{Path(shard).parent.name}-{Path(shard).stem}")
    asking = Asking(victim=find_victim(victim), dataset=dataset, data_label=shard, store=store)
    found = asking.answers(specs, [spec.method for spec in specs], lambda _progress: None)
    samples = [sample for one in dataset.shards for sample in read_shard(one.path)]
    labels = np.array([[sample.label(), sample.original_label()] for sample in samples], np.int64)
    keys = np.array([sample.key for sample in samples])
    return Answers(found.forms, found.shares[0], keys, labels[:, 0] != labels[:, 1], int(labels[0, 0]), found.classes)


@dataclass(frozen=True)
class Sample:
    """``given`` int64 [1 + R, N] and ``shares`` float64 [N] as of ``Answers``; ``kinds`` int64 [N]: 1 triggered, 0
    clean, -1 of the target anyway.
    """

    given: Ints
    shares: npt.NDArray[np.float64]
    kinds: Ints


def draws(clean: Answers, stamped: Answers, *, images: int, share: float, count: int) -> Iterator[Sample]:
    """``count`` samples of so many images."""
    for number in range(count):
        rng = np.random.default_rng([number, int(1000 * share)])
        chosen = rng.permutation(stamped.given.shape[1])[: round(share * images)]
        free = np.flatnonzero(~np.isin(clean.keys, stamped.keys[chosen]))
        rest = rng.permutation(free)[: images - len(chosen)]
        kinds = np.concatenate([np.where(stamped.others[chosen], 1, -1), np.zeros(len(rest), np.int64)])
        yield Sample(
            np.concatenate([stamped.given[:, chosen], clean.given[:, rest]], axis=1),
            np.concatenate([stamped.shares[chosen], clean.shares[rest]]),
            kinds,
        )


def auroc(scores: npt.NDArray[np.float64], kinds: Ints) -> float:
    """Share of pairs in which the triggered image has the higher score; equal ones count half."""
    ahead = scores[kinds == 1][:, None] - scores[kinds == 0][None]
    return float((np.sign(ahead) + 1).mean() / 2)


def tpr_at(scores: npt.NDArray[np.float64], kinds: Ints, *, fpr: float) -> float:
    """Share of triggered images whose score is above that which ``fpr`` of the clean ones reach at most."""
    clean = np.sort(scores[kinds == 0])[::-1]
    return float((scores[kinds == 1] > clean[int(fpr * len(clean))]).mean())


def f1(suspects: npt.NDArray[np.bool_], kinds: Ints) -> float:
    """Of the images called suspects, triggered ones being right, and those of the target anyway left out."""
    right = (suspects & (kinds == 1)).sum()
    return float(2 * right / max(1, suspects[kinds >= 0].sum() + (kinds == 1).sum()))


def row_of(found: Sequence[tuple[Audit, Ints]], target: int) -> dict[str, Any]:
    """What the samples of one share come to."""
    verdicts = Counter(audited.finding for audited, _ in found)
    accused = [audited.judgement.suspect for audited, _ in found]
    return {
        "draws": len(found),
        "target_found": accused.count(target),
        "other_accused": sum(suspect not in {None, target} for suspect in accused),
        **{
            finding.replace(" ", "_"): verdicts[finding]
            for finding in ("nothing found", "too few images", "manipulated images")
        },
        "auroc": [auroc(audited.scores, kinds) for audited, kinds in found if (kinds == 1).any()],
        "tpr_at_1_fpr": [tpr_at(audited.scores, kinds, fpr=0.01) for audited, kinds in found if (kinds == 1).any()],
        "f1": [f1(audited.suspects, kinds) for audited, kinds in found if (kinds == 1).any()],
        "deviations": [audited.judgement.sigmas for audited, _ in found],
        "sureness": [one.judgement.sureness for one, _ in found if one.judgement.sureness is not None],
        "least": [audited.least for audited, _ in found],
    }


def line(row: dict[str, Any]) -> str:
    """A row of the table in the documentation."""
    counts = (
        f"{row[name] / row['draws']:.3f}"
        for name in ("target_found", "other_accused", "manipulated_images", "too_few_images")
    )
    scores = (f"{np.mean(row[name]):.3f}" if row[name] else "" for name in ("auroc", "tpr_at_1_fpr", "f1"))
    share = f"{row['share']:.0%}"
    return f"| {' | '.join([row['case'], row['forms'], share, *counts, *scores])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clean", required=True, help="a shard")
    parser.add_argument("--case", nargs=2, action="append", required=True, metavar=("VICTIM", "POISONED_SHARD"))
    parser.add_argument("--preset", action="append", required=True)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--prior", default="embedded")
    parser.add_argument("--images", type=int, default=300, help="in each sample")
    parser.add_argument("--share", type=float, action="append", help="of them that are triggered; repeats")
    parser.add_argument("--sure", type=float, default=0.1, help="as 'zipbatch audit --share'")
    parser.add_argument("--draws", type=int, default=200)
    asked = parser.parse_args()
    specs = [purifier_spec(PurifierRequest(preset=preset), prior_path(asked.prior)) for preset in asked.preset]
    rows: list[dict[str, Any]] = []
    sys.stdout.write(
        "| victim | purified by | triggered | target found | other | manipulated | too few | AUROC | TPR | F1 |\n"
    )
    sys.stdout.write(f"{'|---' * 10}|\n")
    forms = {preset: [1 + number] for number, preset in enumerate(asked.preset)}
    forms |= {" and ".join(forms): list(range(1, 1 + len(specs)))} if len(specs) > 1 else {}
    for victim, poisoned in asked.case:
        clean, stamped = (answers_of(shard, victim, specs, Store(asked.store)) for shard in (asked.clean, poisoned))
        for (name, chosen), share in (
            (form, share) for form in forms.items() for share in asked.share or (0, 0.02, 0.1, 0.5)
        ):
            found = [
                (
                    audit(
                        *(one.given[0], one.given[chosen]),
                        classes=clean.classes,
                        share=asked.sure,
                        shares=one.shares,
                    ),
                    one.kinds,
                )
                for one in draws(clean, stamped, images=asked.images, share=share, count=asked.draws)
            ]
            rows.append({"case": victim, "forms": name, "share": share, **row_of(found, stamped.target)})
            sys.stdout.write(line(rows[-1]) + "\n")
            sys.stdout.flush()
    atomic.write_json(asked.out, {"rows": rows})


if __name__ == "__main__":
    main()
