"""``zipbatch demo``: poison, purify and evaluate what ships with the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zipbatch import atomic
from zipbatch.cluster import Workers
from zipbatch.config import DemoConfig, find_config, read_config
from zipbatch.errors import UsageError
from zipbatch.purifiers import PURIFIERS
from zipbatch.shards import ShardDataset
from zipbatch.stages.assets import embedded_prior, embedded_victim, sample_source
from zipbatch.stages.evaluate import EvaluateRequest, evaluate, plan_evaluate
from zipbatch.stages.poison import PoisonRequest, poison
from zipbatch.stages.purifier import purifier_spec
from zipbatch.stages.purify import PurifyProgress, PurifyRequest, plan_purify, purify
from zipbatch.stages.sheet import write_sheet
from zipbatch.store import Store

Report = Callable[[str, PurifyProgress | None], None]


@dataclass(frozen=True)
class DemoResult:
    """The rows of the table and where everything lies."""

    rows: list[dict[str, Any]]
    store: Path
    sheets: tuple[Path, ...]
    results: Path


def demo(out: Path, config: DemoConfig, *, workers: Workers, limit: int | None, report: Report) -> DemoResult:
    """Run the whole chain into ``out``. What is there already from an earlier run is used again.

    Args:
        out: folder for shards, store, sheets and ``results.json``.
        config: attacks and purifier presets to compare.
        workers: who purifies and evaluates.
        limit: only the first images of the sample, None for all.
        report: called with what is being done, and with purification's progress.
    """
    store = Store(out / "pur")
    rows: list[dict[str, Any]] = []
    sheets: list[Path] = []
    for attack in config.attacks:
        report(f"staging {attack}", None)
        staged = _stage(out, attack, config, limit)
        tags = [
            _purify(staged, preset, store=store, config=config, workers=workers, report=report)
            for preset in config.purifiers
        ]
        report(f"evaluating {attack}", None)
        plan = plan_evaluate(
            EvaluateRequest(
                victims=(embedded_victim(attack),),
                dataset=staged,
                data_label=str(out / "shards" / attack),
                purified=tuple(f"{staged.name}@{tag}" for tag in tags),
                store=store,
                workers=workers,
            )
        )
        rows += evaluate(plan)
        sheets.append(out / f"sheet-{attack}.png")
        write_sheet(plan, sheets[-1])
    results = out / "results.json"
    atomic.write_json(results, {"rows": rows})
    return DemoResult(rows, store.root, tuple(sheets), results)


def _stage(out: Path, attack: str, config: DemoConfig, limit: int | None) -> ShardDataset:
    request = PoisonRequest(
        source=sample_source(),
        attack=attack,
        out=out / "shards" / attack,
        limit=limit,
        samples_per_shard=config.samples_per_shard,
    )
    try:
        return poison(request).dataset
    except UsageError as error:
        raise UsageError(
            f"{out}: holds a demo of other images or settings; choose another --out or remove it"
        ) from error


def _purify(
    staged: ShardDataset, preset: str, *, store: Store, config: DemoConfig, workers: Workers, report: Report
) -> str:
    method = str(read_config(find_config("purifiers", preset)).get("method"))
    needs_prior = method in PURIFIERS and PURIFIERS[method].needs_prior
    spec = purifier_spec(preset=preset, prior=embedded_prior() if needs_prior else None, seed=config.seed)
    request = PurifyRequest(staged, spec, store, workers, tag=preset, batch_size=config.batch_size)
    what = f"purifying {staged.name} with {preset}"
    report(what, None)
    purify(plan_purify(request), on_progress=lambda progress: report(what, progress))
    return preset
