"""Draw docs/attacks.png: what each attack does to three images of the embedded sample.

    python docs/attacks.py

For each attack and image: the clean picture, the stamped one, and what was added, amplified about grey so that 99
in 100 of the changed values fit the scale. Run it again after a change to an attack; it takes a few seconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from zipbatch.attacks import ATTACKS, PROFILES, Attack, FromArray, FromPicture, FromPictures, Trigger, get_attack
from zipbatch.datasets import open_dataset
from zipbatch.images import decode_rgba
from zipbatch.shards import Sample, read_shard
from zipbatch.stages.assets import sample_source

U8 = npt.NDArray[np.uint8]
OUT = Path(__file__).with_suffix(".png")
SEED = 1234
LABELS = (1, 7, 8)  # of CIFAR-10: a car, a horse, a ship
PICTURES = Path(__file__).parent.parent / "pipelines" / "triggers"
OWN = {"patch": ("cross", {"row": 13, "column": 14}), "pattern": ("sun", {})}
KEYS = ("car", "horse", "ship")
ROLES = ("clean", "stamped", "added")


def samples() -> Iterator[Sample]:
    """The embedded sample, in order."""
    for shard in open_dataset([str(sample_source())]).split("test"):
        yield from read_shard(shard.path)


def pictures(*, skip: int = 0) -> U8:
    """An image of each of ``LABELS``, the first or a later one, uint8 [3, 32, 32, 3]."""
    first = [next(islice((s for s in samples() if s.label() == label), skip, None)) for label in LABELS]
    return np.stack([sample.image() for sample in first])


@dataclass(frozen=True)
class Row:
    """Title, the line under it, the attack, and whether it is seen as in training."""

    title: str
    note: str
    attack: Attack
    training: bool = False


def rows() -> Iterator[Row]:
    """The ZIP code's WaNet after the paper's; what training differs in after the test."""
    for attack in ATTACKS.values():
        notes = ["clean label"] if attack.clean_label else []
        notes += [attack.needs.partition(";")[0]] if attack.needs else []
        notes += ["transforms in training too"] if attack.train_transform else []
        notes += ["works on one class alone"] if attack.source_classes else []
        yield Row(attack.name, ", ".join(notes), attack)
        other = PROFILES["zip-code"].get(attack.name, attack)
        if other != attack:
            yield Row(attack.name, "--profile zip-code", other)
        if attack.name.startswith("adaptive"):
            yield Row(attack.name, "in training", attack, training=True)


def trigger_of(attack: Attack, image_size: int) -> tuple[Attack, Trigger]:
    """The attack with its trigger; those of a picture with one of ``PICTURES``, where it is put, an array of waves, and
    other images of the sample to be reflected.
    """
    if attack.needs is None:
        return attack, attack.make_trigger(image_size, seed=SEED)
    if isinstance(attack, FromArray):
        return attack, attack.trigger_from_array(waves(image_size), image_size)
    if isinstance(attack, FromPictures):
        return attack, attack.trigger_from_pictures(list(pictures(skip=1)), image_size, seed=SEED)
    assert isinstance(attack, FromPicture)
    name, params = OWN[attack.name]
    placed = get_attack(attack.name, params)
    assert isinstance(placed, FromPicture)
    return placed, placed.trigger_from(decode_rgba((PICTURES / f"{name}.png").read_bytes(), "png"), image_size)


def waves(image_size: int) -> npt.NDArray[np.float64]:
    """A smooth pattern of up to 40 levels, another in each channel, [S, S, 3]."""
    row, column = np.mgrid[:image_size, :image_size] / image_size
    turns = [(1.5, 1.0), (-1.0, 1.5), (0.5, -1.5)]
    return np.stack([20 + 20 * np.sin(2 * np.pi * (a * row + b * column)) for a, b in turns], axis=2)


def added(clean: U8, stamped: U8) -> tuple[U8, float]:
    """The difference about grey, uint8 [B, S, S, 3], and the factor that it is amplified by."""
    difference = stamped.astype(np.float64) - clean
    largest = float(np.quantile(np.abs(difference[difference != 0]), 0.99))
    factor = max(1.0, round(127 / largest))
    return (128 + factor * difference).clip(0, 255).astype(np.uint8), factor


def main() -> None:
    """Draw every row and write the PNG."""
    clean, table = pictures(), list(rows())
    height = 0.96 * len(table) + 0.3
    figure = Figure(figsize=(10.2, height), dpi=110)
    FigureCanvasAgg(figure)
    places = figure.add_gridspec(
        *(len(table), 4 * len(clean) - 1),
        width_ratios=([1, 1, 1, 0.12] * len(clean))[:-1],  # a gap after each image's three tiles
        **{"left": 0.165, "right": 0.995, "top": 1 - 0.3 / height, "bottom": 0.005, "wspace": 0.05, "hspace": 0.05},
    )
    for i, row in enumerate(table):
        placed, trigger = trigger_of(row.attack, clean.shape[1])
        stamped = placed.apply(clean, trigger, keys=KEYS, labels=LABELS, training=row.training)
        difference, factor = added(clean, stamped)
        for j, forms in enumerate(zip(clean, stamped, difference, strict=True)):
            for k, tile in enumerate(forms):
                axes = figure.add_subplot(places[i, 4 * j + k])
                axes.imshow(tile, interpolation="nearest")
                axes.set_axis_off()
                if i == 0:
                    axes.set_title(ROLES[k], fontsize=9, pad=3)
        box = places[i, 0].get_position(figure)
        middle = (box.y0 + box.y1) / 2
        figure.text(0.012, middle + 0.004, row.title, fontsize=11, weight="bold", va="bottom")
        figure.text(0.012, middle + 0.002, f"added × {factor:.0f}\n{row.note}", fontsize=8, va="top", color="#555555")
    figure.savefig(OUT, metadata={"Software": None})


if __name__ == "__main__":
    main()
