"""Whatever command makes a folder, killed or out of disk: it is run again, and ends as if it had never stopped."""

from __future__ import annotations

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.checkpoints.guided_restated import Settings, random_state
from tests.foreign import weights, write_record
from tests.making import files_below, zipbatch
from zipbatch import atomic

Command = tuple[object, ...]
CPU = ("--device", "cpu")


class Killed(BaseException):
    """A process that is killed cleans nothing up."""


class Disk:
    """Counts what is made durable, and fails at one of those moments: the process is killed, or the disk is full."""

    def __init__(self, patch: pytest.MonkeyPatch, *, at: int | None, killed: bool = True) -> None:
        self._at, self._killed, self.count = at, killed, 0
        patch.setattr(atomic.os, "fsync", self._through(os.fsync))
        for name in ("replace", "rename"):
            patch.setattr(Path, name, self._through(getattr(Path, name)))
        if killed and at is not None:
            patch.setattr(atomic.shutil, "rmtree", lambda *_, **__: None)
            patch.setattr(Path, "unlink", lambda *_, **__: None)

    def _through(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            self.count += 1
            if self.count == self._at and self._killed:
                raise Killed
            if self.count == self._at:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return call(*arguments)

        return counted


@contextmanager
def disk(*, at: int | None, killed: bool = True) -> Iterator[Disk]:
    with pytest.MonkeyPatch.context() as patch:
        yield Disk(patch, at=at, killed=killed)


@pytest.fixture(scope="module")
def inputs(staged: Path, source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Command]:
    """The commands, each without its folder, which comes last."""
    folder = tmp_path_factory.mktemp("inputs")
    small = Settings(channels=32, multiples=(1, 2, 3, 4), blocks=1, attention=(3,))
    torch.save(random_state(small, seed=5), folder / "prior.pt")
    torch.save(weights("resnet20", 5), folder / "victim.pth")
    record = write_record(folder / "record")
    store = folder / "pur"
    assert zipbatch("purify", staged, "--purifier", "blur", *CPU, "--store", store, "--name", "in").code == 0
    export = ("store", "export", "in", "--store", store)
    train = ("train", "victim", staged, "--arch", "resnet20", "--epochs", 2, *CPU, "--out")
    return {
        "poison": ("poison", source, "--attack", "badnets", "--out"),
        "import prior": ("import", "prior", folder / "prior.pt", "--out"),
        "import victim": ("import", "victim", folder / "victim.pth", "--image-size", 16, "--out"),
        "import dataset": ("import", "dataset", record, "--out"),
        "export shards": export,
        "export a staged dataset": (*export, "--data", staged),
        "export images": (*export, "--as", "images"),
        "export images of named classes": (*export, "--as", "images", "--data", staged),
        "train victim": train,
    }


COMMANDS = (
    "poison",
    "import prior",
    "import victim",
    "import dataset",
    "export shards",
    "export a staged dataset",
    "export images",
    "export images of named classes",
    "train victim",
)


def made(folder: Path) -> dict[str, bytes]:
    """What a command is to leave, without how long it took."""
    found = files_below(folder)
    return {name: b"" if name == "manifest.json" and b'"seconds"' in data else data for name, data in found.items()}


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "full disk"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_was_cut_short_is_run_again(tmp_path: Path, inputs: dict[str, Command], name: str, killed: bool):
    command = inputs[name]
    with disk(at=None) as counted:
        assert zipbatch(*command, tmp_path / "whole").code == 0
    moments = counted.count
    assert moments
    for moment in sorted({1, 1 + moments // 2, moments}):
        out = tmp_path / f"cut-{moment}" / "out"
        with disk(at=moment, killed=killed):
            if killed:
                with pytest.raises(Killed):
                    zipbatch(*command, out)
            else:
                ran = zipbatch(*command, out)
                assert (ran.code, ran.out) == (1, ""), moment
                assert "the disk is full; free some space and run the same command again" in ran.err
                assert str(out.parent) in ran.err
        for _ in range(2):
            ran = zipbatch(*command, out)
            assert ran.code == 0, (moment, ran.err)
            left = {name: data for name, data in made(out).items() if not Path(name).name.startswith(".tmp-")}
            assert left == made(tmp_path / "whole"), moment


@pytest.mark.parametrize("name", ["poison", "import prior", "export shards", "export images"])
def test_the_next_run_sweeps_up_after_a_killed_one(tmp_path: Path, inputs: dict[str, Command], name: str):
    command = inputs[name]
    with disk(at=1), pytest.raises(Killed):
        zipbatch(*command, tmp_path / "cut")
    assert left_over(tmp_path)
    foreign = [tmp_path / ".tmp-mine", tmp_path / ".tmp-1-notours12345"]
    for folder in foreign:
        folder.mkdir()
        (folder / "x").write_bytes(b"keep")
    assert zipbatch(*command, tmp_path / "young").code == 0
    assert left_over(tmp_path), "it may be of a run on a file system that knows no locks"
    age(tmp_path)
    assert zipbatch(*command, tmp_path / "next").code == 0
    assert left_over(tmp_path) == []
    assert all((folder / "x").read_bytes() == b"keep" for folder in foreign)


def test_a_folder_that_a_run_is_at_work_in_is_not_swept(tmp_path: Path):
    with atomic.whole_folder(tmp_path / "slow") as folder:
        (folder / "x").write_bytes(b"x")
        age(tmp_path)
        with atomic.whole_folder(tmp_path / "quick"):
            pass
        assert files_below(folder) == {"x": b"x"}
    assert files_below(tmp_path) == {"slow/x": b"x"}


def test_links_to_old_files_are_young(tmp_path: Path):
    """What an export is putting together, as another machine sees it that cannot see its lock."""
    folder = atomic.temp_path(tmp_path)
    folder.mkdir()
    (tmp_path / "old").write_bytes(b"x")
    os.utime(tmp_path / "old", (0, 0))
    (folder / "new").hardlink_to(tmp_path / "old")
    atomic.sweep_folders(tmp_path)
    assert (folder / "new").exists()
    os.utime(folder, (0, 0))
    atomic.sweep_folders(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def left_over(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if atomic._TEMP_FOLDER.match(path.name)]


def age(folder: Path) -> None:
    """An hour passes."""
    for path in sorted(folder.rglob("*"), reverse=True):
        os.utime(path, (time.time() - 3600,) * 2)


def test_a_changed_export_is_not_taken_for_its_own(tmp_path: Path, inputs: dict[str, Command]):
    for name in ("export shards", "export images"):
        for number, spoil in enumerate((_spoil, _lose, _add)):
            out = tmp_path / f"{name}-{number}"
            assert zipbatch(*inputs[name], out, "--copy" if name == "export shards" else "--json").code == 0
            assert zipbatch(*inputs[name], out, "--json").json["reused"]
            spoil(out)
            before = files_below(out)
            ran = zipbatch(*inputs[name], out)
            assert (ran.code, "exists already" in ran.err) == (2, True)
            assert files_below(out) == before


def _spoil(folder: Path) -> None:
    file = max(path for path in folder.rglob("*.*") if path.is_file())
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def _lose(folder: Path) -> None:
    max(path for path in folder.rglob("*.*") if path.suffix in {".tar", ".png"}).unlink()


def _add(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")


def test_what_a_killed_training_left_beside_its_checkpoint_goes(tmp_path: Path, inputs: dict[str, Command]):
    out = tmp_path / "v"
    with disk(at=4), pytest.raises(Killed):
        zipbatch(*inputs["train victim"], out)
    assert [path for path in out.iterdir() if path.name.startswith(".tmp-")]
    age(out)
    assert zipbatch(*inputs["train victim"], out).code == 0
    assert set(files_below(out)) == {"config.json", "manifest.json", "model.safetensors"}
    shutil.rmtree(out)
