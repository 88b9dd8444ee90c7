"""A user id that nobody has, as containers give one: no entry in passwd, no HOME, no USER."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from pathlib import Path

import pytest

from zipbatch.errors import UsageError
from zipbatch.storage import cache, storage_path
from zipbatch.store.lock import lock_file

NAMES = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR")
NOBODY = """
import pwd
def gone(uid):
    raise KeyError(f"getpwuid(): uid not found: {uid}")
pwd.getpwuid = gone
from zipbatch.cli.main import main
main()
"""


def nobody(*arguments: object) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in NAMES and name != "ZIPBATCH_CACHE"}
    command = [sys.executable, "-c", NOBODY, *map(str, arguments)]

    return subprocess.run(command, capture_output=True, text=True, check=False, env=kept, timeout=120)


def test_purify_and_evaluate(tmp_path: Path, staged: Path, victim: Path):
    store = ("--store", tmp_path / "pur")
    ran = nobody("purify", staged, "--purifier", "blur", "--device", "cpu", *store, "--name", "x", "--lock", "fail")
    assert ran.returncode == 0, ran.stderr
    given = ("--data", staged, "--purified", "x", *store, "--device", "cpu", "--sheet", tmp_path / "s.png")
    ran = nobody("evaluate", victim, *given)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "s.png").is_file()


def test_train(tmp_path: Path, staged: Path):
    options = ("--arch", "resnet20", "--epochs", 1, "--batch-size", 8, "--device", "cpu")
    ran = nobody("train", "victim", staged, "--out", tmp_path / "v", *options)
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "v" / "model.safetensors").is_file()


def test_what_needs_a_home_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def gone(uid: int) -> None:
        raise KeyError(uid)

    for name in (*NAMES, "ZIPBATCH_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", gone)
    for asked in (cache.folder, lambda: lock_file(storage_path("s3://b/pur"), "x")):
        with pytest.raises(UsageError, match="set HOME"):
            asked()
    monkeypatch.setenv("ZIPBATCH_CACHE", str(tmp_path))
    assert cache.folder() == tmp_path
    monkeypatch.setenv("ZIPBATCH_CACHE", "~/copies")
    with pytest.raises(UsageError, match="set HOME"):
        cache.folder()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "copies"
    assert lock_file(storage_path("s3://b/pur"), "x").is_relative_to(tmp_path)
