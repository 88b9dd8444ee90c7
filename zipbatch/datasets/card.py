"""The card of a folder of shards: ``README.md`` as Hugging Face reads it, for people first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from zipbatch.datasets.facts import Facts
from zipbatch.datasets.wids import index_name

_SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M", 10_000_000: "1M<n<10M"}
_ATTACK = {
    "name": "attack",
    "source": "from",
    "params": "settings",
    "profile": "profile",
    "target": "target class",
    "target_mode": "mode",
    "clean_label": "clean label",
    "source_classes": "source classes",
    "poison_rate": "poisoned share of train",
    "poisoned_train_samples": "poisoned images of train",
    "cover_rate": "cover share of train",
    "cover_train_samples": "cover images of train",
    "trigger_sha256": "SHA-256 of `trigger.npz`",
}


def description(facts: Facts) -> str:
    """What the folder is, in a sentence or two of plain text."""
    images = sum(shard.samples for shard in facts.shards)
    size = "" if facts.image_size is None else f" of {facts.image_size} px"
    about = f"{images} images{size} in {len(facts.shards)} webdataset shards"
    if facts.attack is not None:
        about += f", staged with the backdoor attack {facts.attack['name']}"
    if facts.purified is not None:
        about += f", purified by {facts.purified['purifier'].get('method')} (version {facts.purified['version']})"
    return f"{about}. Made by zipbatch {facts.zipbatch}."


def card(facts: Facts) -> str:
    """The card, as Markdown with YAML front matter. It names no licence: that is the user's to say."""
    head = yaml.safe_dump(_front_matter(facts), sort_keys=False, allow_unicode=True, width=1000)
    return f"---\n{head}---\n\n" + "\n".join(_body(facts)) + "\n"


def _front_matter(facts: Facts) -> dict[str, Any]:
    images = sum(shard.samples for shard in facts.shards)
    size = next((name for limit, name in _SIZES.items() if images < limit), "n>10M")
    found: dict[str, Any] = {
        "pretty_name": facts.name,
        "task_categories": ["image-classification"],
        "tags": ["webdataset", "croissant", "zipbatch", *(["backdoor"] if facts.attack is not None else [])],
        "size_categories": [size],
    }
    files = {split: facts.files(split) for split in facts.splits}
    if all(named is not None and split.isidentifier() for split, named in files.items()):
        data = [{"split": split, "path": named} for split, named in files.items()]
        found["configs"] = [{"config_name": "default", "data_files": data}]
    return found


def _body(facts: Facts) -> Iterator[str]:
    yield from (f"# {_plain(facts.name)}", "", _plain(description(facts)), "")
    yield from ("| split | images | shards |", "|---|---|---|")
    for split, shards in facts.splits.items():
        yield f"| {_code(split)} | {sum(shard.samples for shard in shards)} | {len(shards)} |"
    if facts.classes is not None:
        yield from ("", f"Classes, in the order of their labels: {', '.join(map(_code, facts.classes))}.")
    if facts.attack is not None:
        rows = {said: facts.attack.get(name) for name, said in _ATTACK.items()}
        yield from ("", "## Attack", "", *_table({**rows, "seed": facts.seed}), "")
        yield "`cls` is the label that training sees; `json` of a poisoned split has the `original_label` too."
    if facts.purified is not None:
        yield from ("", "## Purified", "", *_table(_purifier(facts.purified)))
    listing, sources = facts.listing[0], {f"source, {split}": sha256 for split, sha256 in facts.source_sha256.items()}
    yield from ("", "## Digests (SHA-256)", "", *_table({listing: facts.listing_sha256, **sources}))
    yield from ("", f"`{listing}` lists every shard with its own.", "", "## Load it", "", *_loading(facts))
    yield from ("", "## Licence", "")
    yield "That of the images that it was made from. Before you share it, add `license:` to the head of this file and"
    yield '`"license"` to `croissant.json`.'


def _purifier(purified: Mapping[str, Any]) -> dict[str, Any]:
    return {"version": purified["version"], **purified["purifier"]}


def _table(rows: Mapping[str, Any]) -> list[str]:
    """Name and value, without what says nothing."""
    said = {name: value for name, value in rows.items() if value is not None}
    names = {name: name if "`" in name else _plain(name) for name in said}
    return ["| | |", "|---|---|", *(f"| {names[name]} | {_code(value)} |" for name, value in said.items())]


def _loading(facts: Facts) -> list[str]:
    split = next(iter(facts.splits), "test")
    files = facts.files(split) if facts.splits else "*.tar"
    pattern = files if isinstance(files, str) else "*.tar"
    return [
        "```python",
        "from pathlib import Path",
        "",
        'folder = Path(".").absolute()  # this one',
        f"shards = sorted(str(file) for file in folder.glob({json.dumps(pattern)}))",
        "",
        "# 1. Hugging Face datasets",
        "import datasets",
        f'images = datasets.load_dataset("webdataset", data_files={{{json.dumps(split)}: shards}})',
        "",
        "# 2. webdataset, in order",
        "import webdataset",
        'images = webdataset.WebDataset(shards, shardshuffle=False).decode("pil")',
        "",
        "# 3. wids, by index; shards are read where they are",
        "import wids",
        f"images = wids.ShardListDataset(str(folder / {json.dumps(index_name(split))}), localname=lambda shard: shard)",
        "```",
    ]


def _plain(text: str) -> str:
    """Text from anywhere as Markdown shows it as it stands, on one line."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|#" else letter for letter in " ".join(text.split()))


def _code(value: object) -> str:
    """A value from anywhere as code in a cell of a table: text as it is, everything else as JSON."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    shown = " ".join(text.split()).replace("`", "'").replace("|", "\\|")
    return f"`{shown or ' '}`"
