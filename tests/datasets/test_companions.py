"""What lies beside shards for other tools: card, Croissant metadata and indexes, read by those tools where they are."""

from __future__ import annotations

import json
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.making import files_below, sample, write_shard, zipbatch
from zipbatch.atomic import sha256_file
from zipbatch.datasets import open_dataset
from zipbatch.datasets.card import card
from zipbatch.datasets.companions import companions
from zipbatch.datasets.croissant import MOST_SHARDS
from zipbatch.datasets.facts import MOST_NAMED, Facts, ShardFacts
from zipbatch.shards import read_shard


def facts(*names: str, split: str = "test", **more: Any) -> Facts:
    shards = [ShardFacts(split=split, name=name, samples=2, sha256="0" * 64, size=512) for name in names]
    return Facts(kind="blur", shards=shards, listing=("shards.jsonl", b""), **more)


def front_matter(text: str) -> dict[str, Any]:
    return dict(yaml.safe_load(text.split("---\n")[1]))


def test_the_index_lists_each_split_in_order(staged: Path):
    for split in ("train", "test", "test_poisoned"):
        index = json.loads((staged / f"wids-{split}.json").read_bytes())
        shards = open_dataset([str(staged)]).split(split)
        assert (index["__kind__"], index["wids_version"]) == ("wids-shard-index-v1", 1)
        assert index["shardlist"] == [
            {"url": s.name, "nsamples": s.samples, "filesize": (staged / s.name).stat().st_size} for s in shards
        ]


def test_the_card_says_what_it_is(staged: Path):
    text = (staged / "README.md").read_text()
    head = front_matter(text)
    assert head["configs"][0]["data_files"][2] == {"split": "test_poisoned", "path": "test_poisoned-*.tar"}
    assert "license" not in head
    assert "| `test_poisoned` | 12 | 3 |" in text
    assert '| settings | `{"patch_size": 0}` |' in text
    assert f"| shards.jsonl | `{sha256_file(staged / 'shards.jsonl')}` |" in text
    assert f"`{sha256_file(staged / 'trigger.npz')}`" in text


def test_croissant_names_every_file_with_its_digest(staged: Path):
    found = json.loads((staged / "croissant.json").read_bytes())
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert {"name", "description", "distribution", "recordSet"} < set(found)
    files = {one["@id"]: one for one in found["distribution"] if one["@type"] == "cr:FileObject"}
    assert len(files) == 1 + len(list(staged.glob("*.tar")))
    for name, one in files.items():
        assert one["sha256"] == sha256_file(staged / name)
        assert one["contentSize"] == f"{(staged / name).stat().st_size} B"
    sets = {one["@id"]: one for one in found["distribution"] if one["@type"] == "cr:FileSet"}
    assert all(inside["@id"] in files for one in sets.values() for inside in one["containedIn"])
    sources = [field["source"]["fileSet"]["@id"] for records in found["recordSet"] for field in records["field"]]
    assert set(sources) == set(sets)


def test_the_same_facts_give_the_same_bytes_anywhere(staged: Path, source: Path, tmp_path: Path):
    given = ("--attack", "badnets", "--out", tmp_path / "elsewhere", "--samples-per-shard", 4)
    assert zipbatch("poison", source, *given).code == 0
    assert files_below(tmp_path / "elsewhere") == files_below(staged)


def test_no_reader_takes_them_for_strays(staged: Path, tmp_path: Path):
    out = Path(shutil.copytree(staged, tmp_path / "bare"))
    for name in ("manifest.json", "shards.jsonl"):
        (out / name).unlink()
    ran = zipbatch("purify", out, "--purifier", "blur", "--device", "cpu", "--store", tmp_path / "pur")
    assert (ran.code, "not taken" in ran.err) == (0, False)
    again = zipbatch("poison", out, "--attack", "badnets", "--out", tmp_path / "again")
    assert again.code == 0
    assert "README" not in again.err


def test_a_folder_of_before_is_read_and_left_as_it_is(staged: Path, source: Path, tmp_path: Path):
    out = Path(shutil.copytree(staged, tmp_path / "old"))
    for name in ("README.md", "croissant.json", *(path.name for path in out.glob("wids-*.json"))):
        (out / name).unlink()
    before = files_below(out)
    given = ("--attack", "badnets", "--out", out, "--samples-per-shard", 4)
    assert zipbatch("poison", source, *given, "--json").json["reused"]
    assert files_below(out) == before


def test_a_card_of_somebody_else_stays(staged: Path, source: Path, tmp_path: Path):
    """Also when a damaged folder is staged again."""
    out = Path(shutil.copytree(staged, tmp_path / "theirs"))
    (out / "README.md").write_text("mine\n")
    (out / "croissant.json").write_text('{"license": "mine"}')
    (out / "test-000000.tar").unlink()
    ran = zipbatch("poison", source, "--attack", "badnets", "--out", out, "--samples-per-shard", 4)
    assert ran.code == 0, ran.err
    assert (out / "README.md").read_text() == "mine\n"
    assert (out / "croissant.json").read_text() == '{"license": "mine"}'
    assert (out / "test-000000.tar").read_bytes() == (staged / "test-000000.tar").read_bytes()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "README.md").write_text("mine\n")
    assert zipbatch("poison", source, "--attack", "badnets", "--out", tmp_path / "new").code == 2
    assert files_below(tmp_path / "new") == {"README.md": b"mine\n"}


def test_an_export_is_there_already_with_another_card_or_none(tmp_path: Path):
    write_shard(tmp_path / "in" / "day-0.tar", [sample("a", None, seed=1)])
    store, out = tmp_path / "pur", tmp_path / "out"
    assert zipbatch("purify", tmp_path / "in", "--purifier", "blur", "--device", "cpu", "--store", store).code == 0
    export = ("store", "export", "in", out, "--store", store, "--json")
    assert not zipbatch(*export).json["reused"]
    (out / "README.md").write_text("mine\n")
    (out / "croissant.json").write_text("{}")
    assert zipbatch(*export).json["reused"]
    (out / "croissant.json").unlink()
    assert zipbatch(*export).json["reused"]
    assert (out / "README.md").read_text() == "mine\n"
    (out / "wids-data.json").write_text("{}")
    assert zipbatch(*export).code == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("test-0.tar", "test-1.tar"), "test-*.tar"),
        (("b.tar", "a.tar"), "*.tar"),
        (("b.tar", "a.tar.gz"), ["b.tar", "a.tar.gz"]),
        (("b[1].tar", "a.tgz"), None),
        (tuple(f"{n}.tgz" for n in range(MOST_NAMED + 1)), None),
    ],
)
def test_what_stands_for_the_shards_of_a_split(names: tuple[str, ...], expected: object):
    found = facts(*names)
    assert found.files("test") == expected
    assert ("configs" in front_matter(card(found))) == (expected is not None)


def test_names_of_strangers_stay_text():
    evil = facts("x.tar", split="a|b`c\n---\n", classes=["<script>", "`|\n# no"])
    text = card(evil)
    assert len(re.findall(r"^---$", text, re.MULTILINE)) == 2
    assert "\n# no" not in text
    assert front_matter(text)["pretty_name"] == evil.name


def test_of_very_many_shards_only_the_list_is_described():
    names = [f"test-{number:06d}.tar" for number in range(MOST_SHARDS + 1)]
    found = json.loads(companions(facts(*names))["croissant.json"])
    assert ([one["@id"] for one in found["distribution"]], found["recordSet"]) == (["shards.jsonl"], [])


@pytest.mark.skipif(not find_spec("wids"), reason="pip install wids")
def test_wids_reads_its_index(staged: Path):
    import wids

    shards = sorted(staged.glob("test_poisoned-*.tar"))
    expected = [(s.key, s.label(), s.image().tobytes()) for shard in shards for s in read_shard(shard)]
    found = wids.ShardListDataset(str(staged / "wids-test_poisoned.json"), localname=lambda shard: shard)
    assert [
        (one["__key__"], one[".cls"], one[".png"].tobytes()) for one in map(found.__getitem__, range(12))
    ] == expected


@pytest.mark.skipif(not find_spec("datasets"), reason="pip install datasets")
def test_hugging_face_datasets_opens_it(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    shards = [str(shard) for shard in sorted(staged.glob("test_poisoned-*.tar"))]
    files, cache = {"test_poisoned": shards}, str(tmp_path / "cache")
    by_files = datasets.load_dataset("webdataset", data_files=files, cache_dir=cache)["test_poisoned"]
    by_card = datasets.load_dataset(str(staged), cache_dir=cache)["test_poisoned"]
    expected = [s.key for shard in shards for s in read_shard(Path(shard))]
    assert list(by_files["__key__"]) == list(by_card["__key__"]) == expected
    assert by_card[0]["png"].size == (16, 16)


@pytest.mark.skipif(not find_spec("mlcroissant"), reason="pip install mlcroissant")
def test_mlcroissant_validates_and_reads_it(staged: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import mlcroissant
    from mlcroissant._src.operation_graph.operations import extract

    monkeypatch.setattr(extract, "EXTRACT_PATH", extract.epath.Path(tmp_path))  # its cache knows files by name alone
    found = mlcroissant.Dataset(jsonld=str(staged / "croissant.json"))
    assert found.metadata.ctx.issues.errors == set()
    assert found.metadata.ctx.is_v1_1()
    expected = {s.key: s.label() for f in staged.glob("test_poisoned-*.tar") for s in read_shard(f)}
    records = "test_poisoned-labels"
    labels = {r[f"{records}/key"].decode(): r[f"{records}/label"] for r in found.records(records)}
    assert labels == expected
    assert {r["test_poisoned/key"].decode() for r in found.records("test_poisoned")} == set(expected)
