"""What a user names may be a pipe, a socket or a device, or a link to one: a clear error, and no waiting for ever."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

import pytest

from tests.making import files_below, write_prior, write_shard, write_source, zipbatch
from tests.making import sample as made_sample

PATIENCE_S = 30


def _link(path: Path) -> None:
    os.mkfifo(path.with_name("the-pipe-itself"))
    path.symlink_to(path.with_name("the-pipe-itself"))


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "socket": lambda path: os.mknod(path, stat.S_IFSOCK | 0o600),
    "device": lambda path: path.symlink_to("/dev/zero"),
    "link to a pipe": _link,
}


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise AssertionError("still waiting")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(PATIENCE_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def _in_place(file: Path, make: Callable[[Path], None]) -> Path:
    """Something else in the place of a file."""
    file.unlink(missing_ok=True)
    file.parent.mkdir(parents=True, exist_ok=True)
    make(file)
    return file


Given = Callable[[Path, Callable[[Path], None], Path], tuple[object, ...]]
"""(folder, maker, victim) -> the command that meets it."""


def _purify(*what: object, store: Path) -> tuple[object, ...]:
    return ("purify", *what, "--purifier", "blur", "--device", "cpu", "--store", store)


def _staged_shard(folder: Path, make: Callable[[Path], None], _: Path) -> tuple[object, ...]:
    write_shard(folder / "in" / "a.tar", [made_sample("x", 0, seed=1)])
    _in_place(folder / "in" / "b.tar", make)
    return _purify(folder / "in", store=folder / "pur")


def _tree(folder: Path, make: Callable[[Path], None], _: Path) -> tuple[object, ...]:
    for name in ("a", "b"):
        (folder / "tree" / "test" / name).mkdir(parents=True)
    _in_place(folder / "tree" / "test" / "a" / "x.png", make)
    return ("poison", folder / "tree", "--attack", "badnets", "--out", folder / "out")


def _prior(part: str) -> Given:
    def given(folder: Path, make: Callable[[Path], None], _: Path) -> tuple[object, ...]:
        write_prior(folder / "prior")
        _in_place(folder / "prior" / part, make)
        shard = write_shard(folder / "in" / "a.tar", [made_sample("x", 0, seed=1)])
        return ("purify", shard, "--prior", folder / "prior", "--device", "cpu", "--store", folder / "pur")

    return given


def _named(*before: object, name: str, after: tuple[object, ...] = ()) -> Given:
    def given(folder: Path, make: Callable[[Path], None], _: Path) -> tuple[object, ...]:
        return (*before, _in_place(folder / name, make), *after, *(("--out", folder / "out") if after else ()))

    return given


def _victim(part: str) -> Given:
    def given(folder: Path, make: Callable[[Path], None], victim: Path) -> tuple[object, ...]:
        (folder / "v").mkdir()
        for file in victim.iterdir():
            (folder / "v" / file.name).write_bytes(file.read_bytes())
        _in_place(folder / "v" / part, make)
        return ("evaluate", folder / "v", "--data", write_source(folder / "src"), "--device", "cpu")

    return given


def _trigger(folder: Path, make: Callable[[Path], None], _: Path) -> tuple[object, ...]:
    picture = _in_place(folder / "trigger.png", make)
    attack = ("--attack", "blended", "--profile", "backdoorbench", "--trigger-image", picture)
    return ("poison", write_source(folder / "src"), *attack, "--out", folder / "out")


CASES: dict[str, Given] = {
    "a shard": lambda folder, make, _: _purify(_in_place(folder / "a.tar", make), store=folder / "pur"),
    "a shard of a folder": _staged_shard,
    "a shard as a source": lambda folder, make, _: (
        *("poison", _in_place(folder / "src" / "test-000000.tar", make).parent),
        *("--attack", "badnets", "--out", folder / "out"),
    ),
    "an image of a tree": _tree,
    "a list of classes": lambda folder, make, _: (
        *("poison", _in_place(write_source(folder / "src") / "classes.txt", make).parent),
        *("--attack", "badnets", "--out", folder / "out"),
    ),
    "an archive": _named("poison", name="cifar-10-python.tar.gz", after=("--attack", "badnets")),
    "a trigger": _trigger,
    "a prior": _named("import", "prior", name="prior.pt", after=("--json",)),
    "a prior's config": _prior("unet/config.json"),
    "a prior's schedule": _prior("scheduler/scheduler_config.json"),
    "a prior's weights": _prior("unet/diffusion_pytorch_model.safetensors"),
    "a victim": _named("import", "victim", name="net.pth", after=("--image-size", 16)),
    "an ONNX victim": _named("import", "victim", name="net.onnx", after=("--image-size", 16)),
    "a victim's config": _victim("config.json"),
    "a victim's weights": _victim("model.safetensors"),
    "a record": _named("import", "dataset", name="attack_result.pt", after=("--json",)),
    "a pipeline": _named("run", name="mine.yaml"),
    "a preset": lambda folder, make, _: (
        *_purify(write_shard(folder / "a.tar", [made_sample("x", 0, seed=1)]), store=folder / "pur"),
        *("--preset", _in_place(folder / "mine.yaml", make)),
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES)
def test_it_is_refused(tmp_path: Path, victim: Path, case: str, kind: str):
    command = CASES[case](tmp_path, KINDS[kind], victim)
    ran = zipbatch(*command)
    assert ran.code in {1, 2}, (ran.out, ran.err)
    assert ran.out == ""
    assert ran.err.strip()
    assert "internal error" not in ran.err
    assert str(tmp_path) in ran.err
    assert not (tmp_path / "out").exists()
    assert not [name for name in files_below(tmp_path / "pur") if name.startswith("versions")]
