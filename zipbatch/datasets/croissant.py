"""Croissant 1.1 metadata (MLCommons, http://mlcommons.org/croissant/1.1) of a folder of shards, as JSON-LD."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from zipbatch.datasets.facts import Facts, ShardFacts

CONFORMS_TO = "http://mlcommons.org/croissant/1.1"
MOST_SHARDS = 2000
"""Of larger datasets only the list of shards is described, which has their digests: metadata are read whole."""
_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "sc": "https://schema.org/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "description": {"@container": "@language"},
    "name": {"@container": "@language"},
    **{
        term: f"cr:{term}"
        for term in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "extract", "field", "fileObject"),
            *("fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath", "key", "md5"),
            *("parentField", "path", "recordSet", "references", "regex", "repeated", "replace", "samplingRate"),
            *("separator", "source", "subField", "transform"),
        )
    },
}


def croissant(facts: Facts, description: str) -> dict[str, Any]:
    """The metadata: files with digests and, for each split, records of images and of labels.

    No licence and no date: the first is the user's to say, the second would make the bytes differ from run to run.
    """
    whole = len(facts.shards) <= MOST_SHARDS
    splits = list(facts.splits) if whole else []
    name, data = facts.listing
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "name": facts.name,
        "description": description,
        "conformsTo": CONFORMS_TO,
        "version": "1.0.0",
        "distribution": [
            _file(name, facts.listing_sha256, len(data), "application/json"),
            *(_file(s.name, s.sha256, s.size, "application/x-tar") for s in (facts.shards if whole else ())),
            *(file_set for split in splits for file_set in _file_sets(split, facts.splits[split])),
        ],
        "recordSet": [records for split in splits for records in _records(split, labelled=facts.classes is not None)],
    }


def _file(name: str, sha256: str, size: int, encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{size} B",
        "encodingFormat": encoding,
        "sha256": sha256,
    }


def _file_sets(split: str, shards: tuple[ShardFacts, ...]) -> list[dict[str, Any]]:
    """What lies in the shards of a split: images, and labels in files of their own."""
    inside = [{"@id": shard.name} for shard in shards]
    kinds = {"images": ("image/png", "*.png"), "labels": ("text/plain", "*.cls")}
    return [
        {
            "@type": "cr:FileSet",
            "@id": f"{split}/{kind}",
            "name": f"{split}/{kind}",
            "containedIn": inside,
            "encodingFormat": encoding,
            "includes": includes,
        }
        for kind, (encoding, includes) in kinds.items()
    ]


def _records(split: str, *, labelled: bool) -> Iterator[dict[str, Any]]:
    """Images of a split by key, and labels by the same keys: mlcroissant 1.1 joins no files of archives itself."""
    kinds = {split: ("images", "png", "image", "sc:ImageObject")}
    if labelled:
        kinds[f"{split}-labels"] = ("labels", "cls", "label", "sc:Integer")
    for name, (files, extension, content, kind) in kinds.items():
        inside = f"{split}/{files}"
        yield {
            "@type": "cr:RecordSet",
            "@id": name,
            "name": name,
            "key": {"@id": f"{name}/key"},
            "field": [
                _field(f"{name}/key", "sc:Text", inside, "fullpath", regex=rf"^(.*)\.{extension}$"),
                _field(f"{name}/{content}", kind, inside, "content"),
            ],
        }


def _field(name: str, kind: str, files: str, what: str, *, regex: str | None = None) -> dict[str, Any]:
    source: dict[str, Any] = {"fileSet": {"@id": files}, "extract": {"fileProperty": what}}
    if regex is not None:
        source["transform"] = {"regex": regex}
    return {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind, "source": source}
