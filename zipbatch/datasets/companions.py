"""What lies beside the shards for other tools and people: a card, Croissant metadata, an index for each split.

No reader of zipbatch needs them: a folder without them, or with a card of somebody else's, is read as ever.
"""

from __future__ import annotations

import re
from pathlib import Path

from zipbatch import atomic
from zipbatch.datasets.card import card, description
from zipbatch.datasets.croissant import croissant
from zipbatch.datasets.facts import Facts
from zipbatch.datasets.wids import index, index_name, is_index

CARD, CROISSANT = "README.md", "croissant.json"
EDITED = frozenset({CARD, CROISSANT})
"""What people add to: a licence, a citation. What is there stays."""


_SIGNED = re.compile(r"[0-9a-f]{20}\.(?:json|jsonl\.gz|sig\.jsonl)")


def is_signed_file(name: str) -> bool:
    """Whether a file beside exported shards is called as the header, list or signatures of a signed version."""
    return _SIGNED.fullmatch(name) is not None


def is_companion(name: str) -> bool:
    """Whether a file beside shards is called as one of these."""
    return name in EDITED or is_index(name)


def companions(facts: Facts) -> dict[str, bytes]:
    """Name -> bytes of each; the same facts give the same bytes, wherever the folder lies."""
    texts = {index_name(split): atomic.readable_json(index(facts, split)) + "\n" for split in facts.splits}
    texts[CROISSANT] = atomic.readable_json(croissant(facts, description(facts))) + "\n"
    texts[CARD] = card(facts)
    return {name: text.encode(errors="backslashreplace") for name, text in texts.items()}


def write_companions(folder: Path, facts: Facts) -> None:
    """Write each into a folder, whole or not at all; what people add to stays where it is there."""
    for name, data in companions(facts).items():
        if name not in EDITED or not (folder / name).exists():
            atomic.write_bytes(folder / name, data)
