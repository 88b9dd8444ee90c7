"""Answers of victims on the images of shards, kept so that no victim is asked twice.

    answers/<victim>/victim.json               how many classes it knows, where its files do not say that
    answers/<victim>/ab/<shard>.json.gz        its answers on that shard, as it came or as it was purified

Both names are digests: of what decides the victim's answers, and of the shard's bytes. What is missing or damaged is
asked about again.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Collection, Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, model_validator

from zipbatch.store.files import StoredFile, StoreFiles
from zipbatch.store.lists import unpacked
from zipbatch.store.seal import sealed, unsealed

FOLDER = "answers"
MAX_BYTES = 256 * 1024**2
"""Of the answers on a shard as they unpack: a few million images."""
_DIGEST = r"[0-9a-f]{64}"
_ANSWERS = re.compile(rf"{FOLDER}/({_DIGEST})/[0-9a-f]{{2}}/({_DIGEST})\.json\.gz")
_VICTIM = re.compile(rf"{FOLDER}/({_DIGEST})/victim\.json")


class ShardAnswers(BaseModel):
    """What a victim answered on each image of a shard, in its order, but for those in the ``quarantine`` shards.

    ``victim`` and ``shard`` are digests, ``answers`` indices of classes, ``shares`` of 1 what the victim gives each of
    them. ``again`` are answers on some of the images, by key, when it was asked about them once more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    format_version: Literal[1] = 1
    victim: str = Field(pattern=rf"^{_DIGEST}$")
    shard: str = Field(pattern=rf"^{_DIGEST}$")
    quarantine: tuple[str, ...] = ()
    classes: int = Field(ge=2)
    keys: tuple[str, ...]
    answers: tuple[NonNegativeInt, ...]
    shares: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    again: dict[str, NonNegativeInt] = {}

    @property
    def by_key(self) -> dict[str, tuple[int, float]]:
        """The answer on each image, and the share that it is given."""
        return dict(zip(self.keys, zip(self.answers, self.shares, strict=True), strict=True))

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if not len(self.keys) == len(self.answers) == len(self.shares):
            raise ValueError("keys, answers and shares differ in number")
        if max((*self.answers, *self.again.values()), default=0) >= self.classes:
            raise ValueError("an answer is none of the classes")
        return self


class Answers:
    """Everything is looked up by its name. Only ``all`` and ``needless`` list, for the store's care."""

    def __init__(self, files: StoreFiles) -> None:
        self._files = files

    def read(self, victim: str, shard: str) -> ShardAnswers | None:
        """A victim's answers on a shard; None when they are missing or damaged."""
        found = self._read(answers_name(victim, shard))
        return found if found is not None and (found.victim, found.shard) == (victim, shard) else None

    def put(self, answers: ShardAnswers) -> None:
        """Publish the answers on a shard, over those that are there."""
        text = json.dumps(sealed(answers.model_dump(mode="json")), ensure_ascii=True)
        self._files.write_file(answers_name(answers.victim, answers.shard), gzip.compress(text.encode(), 6, mtime=0))

    def remove(self, victim: str, shard: str) -> None:
        """Forget the answers on a shard, which need not be there."""
        self._files.remove_file(answers_name(victim, shard))

    def classes(self, victim: str) -> int | None:
        """How many classes a victim knows, as was noted; None when nothing is, or it is damaged."""
        try:
            data = self._files.read_file(victim_name(victim), limit=MAX_BYTES)
            classes = None if data is None else unsealed(data, required=True)["classes"]
        except (ValueError, KeyError):
            return None
        return classes if isinstance(classes, int) and classes >= 2 else None

    def note_victim(self, victim: str, decided_by: dict[str, Any], *, classes: int) -> None:
        """Note how many classes a victim knows, beside what decides its answers, for people."""
        text = json.dumps(sealed({"decided_by": decided_by, "classes": classes}), indent=2)
        self._files.write_file(victim_name(victim), f"{text}\n".encode())

    def is_damaged(self, file: StoredFile) -> bool:
        """Whether a file of answers is none that was written here."""
        found, named = self._read(file.name), _ANSWERS.fullmatch(file.name)
        if named is None:
            victim = _VICTIM.fullmatch(file.name)
            return victim is None or self.classes(victim[1]) is None
        return found is None or (found.victim, found.shard) != named.groups()

    def needless(self, shards: Collection[str], *, before_ns: int) -> tuple[str, ...]:
        """Files, not written since ``before_ns``, of answers on other shards than these, and what is noted of victims
        of whom no others are left.
        """
        gone, noted, in_use = list[str](), dict[str, str](), set[str]()
        for file in self.all():
            answers, victim = _ANSWERS.fullmatch(file.name), _VICTIM.fullmatch(file.name)
            old = file.mtime_ns < before_ns
            if answers is not None and old and answers[2] not in shards:
                gone.append(file.name)
            elif answers is not None:
                in_use.add(answers[1])
            elif victim is not None and old:
                noted[victim[1]] = file.name
        return (*gone, *(name for victim, name in noted.items() if victim not in in_use))

    def all(self) -> Iterator[StoredFile]:
        """All files of answers, for the store's care only."""
        return self._files.list_files(FOLDER)

    def _read(self, name: str) -> ShardAnswers | None:
        try:
            if (data := self._files.read_file(name, limit=MAX_BYTES)) is None:
                return None
            return ShardAnswers.model_validate(unsealed(unpacked(data, limit=MAX_BYTES), required=True))
        except ValueError:
            return None


def answers_name(victim: str, shard: str) -> str:
    """Where the answers of a victim on a shard are, below the store's root."""
    return f"{FOLDER}/{victim}/{shard[:2]}/{shard}.json.gz"


def victim_name(victim: str) -> str:
    """Where it is noted what is known of a victim."""
    return f"{FOLDER}/{victim}/victim.json"
