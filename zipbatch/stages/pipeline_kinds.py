"""What a stage of a pipeline can be: its settings, its inputs, what it leaves behind, and how it is run."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from zipbatch import atomic, places
from zipbatch.attacks import attack_params, get_attack
from zipbatch.checkpoints import open_victim
from zipbatch.checkpoints.victim import CONFIG
from zipbatch.cluster import pick_device
from zipbatch.config import PriorConfig, Settings, VictimConfig, find_config, load_config
from zipbatch.errors import DataError, UsageError
from zipbatch.purifiers import PURIFIERS
from zipbatch.shards import open_dataset
from zipbatch.shards.dataset import MANIFEST
from zipbatch.stages.evaluate import EvaluateRequest, evaluate, plan_evaluate, with_purified
from zipbatch.stages.pipeline_instance import Input, Instance, Place
from zipbatch.stages.poison import PoisonRequest, poison
from zipbatch.stages.purifier import TILING, chosen_purifier, purifier_spec
from zipbatch.stages.purify import purify
from zipbatch.stages.purify_plan import PurifyRequest, plan_purify
from zipbatch.stages.sheet import write_sheet
from zipbatch.stages.source import open_source
from zipbatch.stages.train_prior import train_prior
from zipbatch.stages.train_victim import train_victim
from zipbatch.store import Versions

MEASURES_VERSION = 2
"""Raised whenever an evaluation of the same things comes to say something else."""
Report = Callable[[str, float, str], None]
"""Called with what is being done, how far it is (0 to 1), and a note."""


@dataclass(frozen=True)
class Kind:
    """A kind of stage.

    Attributes:
        settings: its settings.
        inputs: its input fields.
        run: makes what the instance stands for.
        facts: what decides the result beside the inputs: settings as they are resolved, versions of algorithms. Raises
            ``UsageError`` when the settings cannot be.
        is_done: whether what it makes is there.
    """

    settings: type[Settings]
    inputs: Mapping[str, Input]
    run: Callable[[Instance, Place, Report], None]
    is_done: Callable[[Instance, Place], bool]
    facts: Callable[[Any], dict[str, Any]]


class PoisonSettings(Settings):
    """As the options of ``zipbatch poison``."""

    attack: str
    profile: str = "standard"
    params: dict[str, Any] = Field(default_factory=dict)
    target: int | None = None
    target_mode: Literal["all-to-one", "all-to-all"] = "all-to-one"
    poison_rate: float | None = None
    clean_label: bool | None = None
    seed: int = Field(1234, ge=0)
    splits: tuple[str, ...] = ()
    limit: int | None = Field(None, ge=1)
    image_size: int | None = Field(None, ge=8)
    samples_per_shard: int = Field(1000, ge=1)
    resize: Literal["stretch", "center-crop"] = "stretch"
    trigger_image: Path | None = None
    skip_unreadable: bool = False


def _poison(instance: Instance, place: Place, report: Report) -> None:
    settings = instance.settings
    assert isinstance(settings, PoisonSettings)
    values = settings.model_dump() | {"params": _texts(settings.params)}
    request = PoisonRequest(source=_text(instance.one("source")), out=instance.path(place), **values)
    poison(request, on_progress=lambda done, total: report(instance.label, done / max(1, total), ""))


class TrainSettings(Settings):
    """A preset and single settings over it."""

    preset: str
    set: dict[str, Any] = Field(default_factory=dict)


def _train_victim(instance: Instance, place: Place, report: Report) -> None:
    assert isinstance(instance.settings, TrainSettings)
    dataset = open_dataset([str(_at(instance.one("data"), place))])
    if instance.inputs["purified"]:
        version = Versions(place.store).read("@".join(_reference(instance.one("purified"), place)))
        dataset = with_purified(dataset, version, place.store, split="train")
    train_victim(
        dataset,
        instance.path(place),
        _victim_config(instance.settings),
        device=pick_device(place.workers.device),
        on_progress=lambda p: report(instance.label, p.fraction, f"loss {p.loss:.3f} {p.images_per_s:.0f} images/s"),
    )


def _train_prior(instance: Instance, place: Place, report: Report) -> None:
    assert isinstance(instance.settings, TrainSettings)
    train_prior(
        open_source(_text(instance.one("source")), (), labelled=False),
        instance.path(place),
        _prior_config(instance.settings),
        device=pick_device(place.workers.device),
        on_progress=lambda p: report(instance.label, p.fraction, f"eps-MSE {p.loss:.4f}"),
    )


class PurifySettings(Settings):
    """As the options of ``zipbatch purify``; ``set`` are single settings over the preset."""

    preset: str | None = None
    purifier: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    splits: tuple[str, ...] = ()
    seed: int = Field(0, ge=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    resize: Literal["stretch", "center-crop"] | None = None
    batch_size: int = Field(32, ge=1)
    quarantine: bool = False
    other_images: Literal["refuse", "keep"] = "refuse"


def _purify(instance: Instance, place: Place, report: Report) -> None:
    settings = instance.settings
    assert isinstance(settings, PurifySettings)
    dataset, tag = _reference(instance, place)
    spec = purifier_spec(
        preset=settings.preset,
        method=settings.purifier,
        assigned=settings.set,
        prior=_at(instance.one("prior"), place) if instance.inputs["prior"] else None,
        seed=settings.seed,
        precision=settings.precision,
        resize=settings.resize,
    )
    plan = plan_purify(
        PurifyRequest(
            open_dataset([str(_at(instance.one("data"), place))], name=dataset),
            spec,
            place.store,
            place.workers,
            splits=settings.splits,
            tag=tag,
            batch_size=settings.batch_size,
            quarantine=settings.quarantine,
            keep=settings.other_images == "keep",
        )
    )
    purify(
        plan,
        on_progress=lambda p: report(
            instance.label, p.shards_done / max(1, p.shards), f"{p.samples_per_s:.1f} images/s"
        ),
    )


class EvaluateSettings(Settings):
    """``sheet``: also a contact sheet."""

    sheet: bool = False


def _evaluate(instance: Instance, place: Place, report: Report) -> None:
    assert isinstance(instance.settings, EvaluateSettings)
    data = str(_at(instance.one("data"), place))
    plan = plan_evaluate(
        EvaluateRequest(
            victims=tuple(open_victim(_at(item, place)) for item in instance.inputs["victim"]),
            dataset=open_dataset([data]),
            data_label=data,
            purified=tuple("@".join(_reference(item, place)) for item in instance.inputs["purified"]),
            store=place.store,
            workers=place.workers,
        )
    )
    rows = evaluate(plan, on_progress=lambda done, total: report(instance.label, done / max(1, total), ""))
    if instance.settings.sheet:
        write_sheet(plan, sheet_file(instance, place))
    atomic.write_json(rows_file(instance, place), {"rows": rows})


def _has(file: str) -> Callable[[Instance, Place], bool]:
    """Folders are whole when their last file is there."""
    return lambda instance, place: (instance.path(place) / file).is_file()


def _is_purified(instance: Instance, place: Place) -> bool:
    """Its version reads, and every object of it is there: what 'store verify --repair' removed is made anew."""
    dataset, tag = _reference(instance, place)
    try:
        if Versions(place.store).tag(dataset, tag) is None:
            return False
        version = Versions(place.store).read(f"{dataset}@{tag}")
    except (UsageError, DataError):
        return False
    return all(place.store.has_object(row.output) for row in version.rows)


def _is_evaluated(instance: Instance, place: Place) -> bool:
    assert isinstance(instance.settings, EvaluateSettings)
    sheet = sheet_file(instance, place)
    return rows_file(instance, place).is_file() and (sheet.is_file() or not instance.settings.sheet)


def _needs_prior(settings: PurifySettings) -> bool:
    method, _ = chosen_purifier(preset=settings.preset, method=settings.purifier, assigned=settings.set)
    return PURIFIERS[method].needs_prior


def _maybe(_settings: Settings) -> None:
    return None


def _poison_facts(settings: PoisonSettings) -> dict[str, Any]:
    """The attack as it will be, wherever its parameters come from."""
    attack = get_attack(settings.attack, _texts(settings.params), profile=settings.profile)
    return {
        **settings.model_dump(mode="json", exclude={"profile", "trigger_image", "skip_unreadable"}),
        "params": attack_params(attack),
        "target": attack.default_target if settings.target is None else settings.target,
        "poison_rate": attack.default_poison_rate if settings.poison_rate is None else settings.poison_rate,
        "clean_label": attack.clean_label if settings.clean_label is None else settings.clean_label,
        "train_transform": attack.train_transform,
        **({"variant": attack.variant} if attack.variant else {}),
        **({"trigger_image_sha256": atomic.sha256_file(settings.trigger_image)} if settings.trigger_image else {}),
        **({"skip_unreadable": True} if settings.skip_unreadable else {}),
    }


def _purify_facts(settings: PurifySettings) -> dict[str, Any]:
    """What the identity of a purifier holds, but for its prior."""
    method, chosen = chosen_purifier(preset=settings.preset, method=settings.purifier, assigned=settings.set)
    kind = PURIFIERS[method]
    return {
        "method": method,
        "algorithm_version": kind.version,
        "settings": chosen.model_dump(mode="json"),
        "libraries": dict(kind.libraries),
        "splits": list(settings.splits),
        "resize": settings.resize,
        "seed": settings.seed if kind.seeded else None,
        "precision": settings.precision if kind.needs_prior else None,
        "tiling": TILING if kind.needs_prior else None,
        **({"quarantine": True} if settings.quarantine else {}),
        **({"other_images": "keep"} if settings.other_images == "keep" else {}),
    }


KINDS: dict[str, Kind] = {
    "poison": Kind(PoisonSettings, {"source": Input()}, _poison, _has(MANIFEST), _poison_facts),
    "train victim": Kind(
        TrainSettings,
        {"data": Input(("poison",)), "purified": Input(("purify",), path=False, needed=_maybe)},
        _train_victim,
        _has(CONFIG),
        lambda settings: {"config": _victim_config(settings).model_dump(mode="json")},
    ),
    "train prior": Kind(
        TrainSettings,
        {"source": Input()},
        _train_prior,
        _has(MANIFEST),
        lambda settings: {"config": _prior_config(settings).model_dump(mode="json")},
    ),
    "purify": Kind(
        PurifySettings,
        {"data": Input(("poison",)), "prior": Input(("train prior",), needed=_needs_prior)},
        _purify,
        _is_purified,
        _purify_facts,
    ),
    "evaluate": Kind(
        EvaluateSettings,
        {
            "victim": Input(("train victim",), many=True),
            "data": Input(("poison",)),
            "purified": Input(("purify",), path=False, many=True, needed=_maybe),
        },
        _evaluate,
        _is_evaluated,
        lambda _: {"measures": MEASURES_VERSION},
    ),
}


def rows_file(instance: Instance, place: Place) -> Path:
    """Where an evaluation keeps its rows."""
    return instance.path(place).with_name(f"{instance.slug}.json")


def sheet_file(instance: Instance, place: Place) -> Path:
    """Where an evaluation's contact sheet lies."""
    return instance.path(place).with_name(f"{instance.slug}.png")


def read_rows(instance: Instance, place: Place) -> list[dict[str, Any]]:
    """The rows of a finished evaluation: for each victim without a defence, then with each purified version."""
    rows: list[dict[str, Any]] = json.loads(rows_file(instance, place).read_bytes())["rows"]
    return rows


def _victim_config(settings: TrainSettings) -> VictimConfig:
    return load_config(find_config("victims", settings.preset), VictimConfig, settings.set)


def _prior_config(settings: TrainSettings) -> PriorConfig:
    return load_config(find_config("priors", settings.preset), PriorConfig, settings.set)


def _texts(params: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in params.items()}


def _text(item: Instance | str) -> str:
    assert isinstance(item, str)  # its input rule takes no stage
    return item


def _at(item: Instance | str, place: Place) -> places.Place:
    return item.path(place) if isinstance(item, Instance) else places.place(item)


def _reference(item: Instance | str, place: Place) -> tuple[str, str]:
    """Dataset and tag of what a purify stage makes; the dataset is named after its folder."""
    assert isinstance(item, Instance)  # its input rule takes no path
    return _at(item.one("data"), place).resolve().name, f"{item.stage}-{item.slug}"
