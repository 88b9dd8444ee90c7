"""Answers are kept in the store: nobody is asked twice, after a kill neither. Counted at a real HTTP victim."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.making import Ran, files_below, sample, write_shard, write_victim, zipbatch
from tests.serving import Served, npy, serving
from zipbatch.stages.audit import sense
from zipbatch.storage import StoragePath
from zipbatch.store import Store

SHARDS, IMAGES = 10, 6
TWICE = 8


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sense, "ASKED_TWICE", TWICE)
    monkeypatch.setattr(os, "fsync", lambda _fd: None)


def colours(images: np.ndarray) -> np.ndarray:
    """A steady victim of three classes: which colour is the strongest."""
    return images.astype(np.float64).mean(axis=(1, 2)) / 255


@contextmanager
def victim(scores: Callable[[np.ndarray], np.ndarray] = colours) -> Iterator[Served]:
    with serving(lambda images: (200, npy(scores(images)))) as served:
        yield served


def asked(served: Served) -> list[bytes]:
    """Every image that it was asked about, as its bytes, in any order."""
    return sorted(image.tobytes() for i in range(len(served.bodies)) for image in served.images(i))


def day(incoming: Path, number: int) -> None:
    write_shard(
        incoming / f"day-{number:02d}.tar",
        [sample(f"d{number}-{i}", None, seed=100 * number + i) for i in range(IMAGES)],
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten shards, purified."""
    folder = tmp_path_factory.mktemp("kept")
    for number in range(SHARDS):
        day(folder / "incoming", number)
    purify(folder)
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "here")


def purify(here: Path, purifier: str = "blur") -> None:
    how = ("--purifier", purifier, "--store", here / "pur", "--tag", purifier)
    ran = zipbatch("purify", here / "incoming", "--name", "in", *how)
    assert ran.code == 0, ran.err


def command(here: Path, victim: object, *options: object, version: str | None = "1") -> list[object]:
    named = () if version is None else ("--victim-version", version)
    data = ("--data", here / "incoming", "--purified", "in@blur", "--store", here / "pur")
    return ["audit", victim, *data, *named, "--json", "--per-image", here / "rows.csv", *options]


def audit(here: Path, victim: object, *options: object, version: str | None = "1") -> Ran:
    return zipbatch(*command(here, victim, *options, version=version))


def found(ran: Ran, here: Path) -> tuple[dict[str, Any], bytes]:
    """All that an audit says of images and victim: not how much of it was known before."""
    assert ran.code in {0, 3, 4}, ran.err
    return ran.json | {"reused": 0, "victim": ""}, (here / "rows.csv").read_bytes()


def asking_all(here: Path, *options: object) -> tuple[dict[str, Any], bytes]:
    """What an audit finds for which nothing is kept."""
    with victim() as anew:
        return found(audit(here, anew.url, *options, version=None), here)


def test_a_second_audit_asks_nothing_and_says_the_same(here: Path):
    with victim() as served:
        ran = audit(here, served.url)
        said, before = found(ran, here), len(asked(served))
        assert (ran.json["reused"], ran.json["asked_twice"]) == (0, TWICE)
        assert before == 1 + 2 * SHARDS * IMAGES + TWICE  # the one tells how many classes there are
        again = audit(here, served.url, "--summary", here / "run.json")
        assert len(asked(served)) == before
        assert again.json["reused"] == again.json["answers"] == 2 * SHARDS * IMAGES
        assert found(again, here) == said
        assert json.loads((here / "run.json").read_bytes())["audit"]["answers"] == {"asked": 0, "reused": 120}
        told = zipbatch(*[word for word in command(here, served.url) if word != "--json"]).out
        assert "120, of which 120 were kept from earlier audits" in " ".join(told.split())
        assert len(asked(served)) == before
    assert asking_all(here) == said


def test_ten_old_shards_and_a_new_one_ask_about_one(here: Path):
    with victim() as served:
        audit(here, served.url)
        old = set(asked(served))
        served.bodies.clear()
        day(here / "incoming", SHARDS)
        purify(here)
        ran = audit(here, served.url)
        said = found(ran, here)
    assert (ran.json["reused"], ran.json["answers"]) == (2 * SHARDS * IMAGES, 2 * (SHARDS + 1) * IMAGES)
    assert 2 * IMAGES <= len(asked(served)) <= 2 * IMAGES + TWICE
    assert old.isdisjoint(asked(served))
    assert asking_all(here) == said


def test_another_purified_form_asks_about_that_alone(here: Path):
    with victim() as served:
        audit(here, served.url)
        served.bodies.clear()
        purify(here, "jpeg")
        ran = audit(here, served.url, "--purified", "in@jpeg")
        said = found(ran, here)
    assert (ran.json["reused"], ran.json["answers"]) == (2 * SHARDS * IMAGES, 3 * SHARDS * IMAGES)
    assert len(asked(served)) == SHARDS * IMAGES
    assert asking_all(here, "--purified", "in@jpeg") == said


def test_an_audit_that_failed_goes_on_where_it_was(here: Path):
    count = 0

    def failing(images: np.ndarray) -> tuple[int, bytes]:
        nonlocal count
        count += 1
        return (400, b"down") if 9 <= count < 12 else (200, npy(colours(images)))

    with serving(failing) as served:
        assert audit(here, served.url).code == 1
        known = kept_shards(here)
        assert len(known) >= 2 * (SHARDS - 3)
        served.bodies.clear()
        said = found(audit(here, served.url), here)
    assert len(asked(served)) <= (2 * SHARDS - len(known)) * IMAGES + TWICE
    assert asking_all(here) == said


@pytest.mark.slow
def test_an_audit_that_was_killed_goes_on_where_it_was(here: Path):
    """By SIGKILL, in the middle of a question."""
    began, children = threading.Event(), list[subprocess.Popen[bytes]]()
    count = 0

    def killing(images: np.ndarray) -> np.ndarray:
        nonlocal count
        count += 1
        if count == 10:
            began.wait(60)
            children[0].send_signal(signal.SIGKILL)
            children[0].wait()
        return colours(images)

    with victim(killing) as served:
        words = [sys.executable, "-m", "zipbatch", *map(str, command(here, served.url))]
        children.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        began.set()
        assert children[0].wait(120) == -signal.SIGKILL
        known = kept_shards(here)
        assert 2 <= len(known) < 2 * SHARDS
        served.bodies.clear()
        ran = audit(here, served.url)
        said = found(ran, here)
    assert ran.json["reused"] == len(known) * IMAGES
    assert len(asked(served)) == (2 * SHARDS - len(known)) * IMAGES + TWICE
    assert asking_all(here) == said


def kept_shards(here: Path) -> list[Path]:
    return sorted((here / "pur" / "answers").rglob("*.json.gz"))


def test_damaged_answers_are_asked_for_again(here: Path):
    with victim() as served:
        said = found(audit(here, served.url), here)
        file = kept_shards(here)[3]
        value = json.loads(gzip.decompress(file.read_bytes()))
        value["answers"][0] = (value["answers"][0] + 1) % 3
        file.write_bytes(gzip.compress(json.dumps(value).encode()))
        served.bodies.clear()
        ran = audit(here, served.url)
        assert IMAGES <= len(asked(served)) <= IMAGES + TWICE
        assert (ran.json["reused"], found(ran, here)) == ((2 * SHARDS - 1) * IMAGES, said)
        served.bodies.clear()
        audit(here, served.url)
        assert served.bodies == []


def test_an_endpoint_without_a_version_or_with_another_is_asked_anew(here: Path):
    with victim() as served:
        for version in (None, None, "1", "2", None):
            served.bodies.clear()
            assert audit(here, served.url, version=version).json["reused"] == 0
            assert len(asked(served)) >= 2 * SHARDS * IMAGES + TWICE
        served.bodies.clear()
        assert audit(here, served.url, version="1").json["reused"] == 2 * SHARDS * IMAGES
        assert served.bodies == []


def test_a_function_is_known_by_its_file(here: Path):
    file = here / "mine.py"
    text = "import numpy as np\n\ndef scores(images):\n    print(len(images), file=open({log!r}, 'a'))\n"
    text = text.format(log=str(here / "log")) + "    return images.mean(axis=(1, 2))\n"
    file.write_text(text)

    def asked_about() -> int:
        lines = (here / "log").read_text().split() if (here / "log").exists() else []
        (here / "log").write_text("")
        return sum(map(int, lines))

    named = f"python:{file}:scores"
    audit(here, named, version=None)
    assert asked_about() == 1 + 2 * SHARDS * IMAGES + TWICE
    audit(here, named, version=None)
    assert asked_about() == 0
    audit(here, named, version="with other weights")
    assert asked_about() == 1 + 2 * SHARDS * IMAGES + TWICE
    file.write_text(text + "    # another file\n")
    audit(here, named, version=None)
    assert asked_about() == 1 + 2 * SHARDS * IMAGES + TWICE


def test_a_folder_is_known_by_its_weights(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sense, "ALIKE_FROM", 10**6)  # it is untrained, and answers everything alike
    theirs = write_victim(tmp_path / "theirs")
    assert audit(here, theirs, version=None).json["reused"] == 0
    assert audit(here, theirs, version=None).json["reused"] == 2 * SHARDS * IMAGES
    shutil.copytree(theirs, tmp_path / "moved")
    assert audit(here, tmp_path / "moved", version=None).json["reused"] == 2 * SHARDS * IMAGES
    config = json.loads((theirs / "config.json").read_text())
    (theirs / "config.json").write_text(json.dumps({**config, "mean": [0.1, 0.2, 0.3]}))
    assert audit(here, theirs, version=None).json["reused"] == 0
    refused = audit(here, theirs)
    assert (refused.code, "is a folder, whose weights tell" in refused.err) == (2, True)


def test_a_store_that_cannot_be_written_is_no_hindrance(here: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Store, "write_file", refuse)
    with victim() as served:
        ran = audit(here, served.url)
    assert "answers are not kept: Permission denied" in ran.err
    found(ran, here)


def test_the_pictures_of_a_report_are_not_asked_about(here: Path):
    with victim() as served:
        audit(here, served.url)
        served.bodies.clear()
        assert audit(here, served.url, "--report", here / "page.html").code in {0, 3, 4}
        assert served.bodies == []
    assert (here / "page.html").stat().st_size > 10_000


def test_nothing_is_kept_without_a_store(here: Path, tmp_path: Path):
    with victim() as served:
        before = files_below(here / "incoming")
        words = ("audit", served.url, "--data", here / "incoming", "--preset", "jpeg")
        assert zipbatch(*words).code in {0, 3, 4}
        refused = zipbatch(*words, "--victim-version", "1")
    assert (refused.code, "--victim-version is for answers that are kept" in refused.err) == (2, True)
    assert files_below(here / "incoming") == before


def test_wherever_the_store_is(made: Path, tmp_path: Path, pur: StoragePath):
    """On a disk, or at a URL."""
    data = ("--data", made / "incoming", "--preset", "jpeg", "--store", pur, "--victim-version", "1", "--json")
    with victim() as served:
        first = zipbatch("audit", served.url, *data)
        assert first.code in {0, 3, 4}, first.err
        served.bodies.clear()
        again = zipbatch("audit", served.url, *data)
        assert served.bodies == []
    assert again.json == first.json | {"reused": 2 * SHARDS * IMAGES}
