"""A campaign of faults: ``python tests/fuzz/faults.py --rounds 100 [--s3] [--seed N] [--only KIND]``.

Each round runs one command, or several at once, on a store that earlier rounds have left, while one thing goes wrong: a
kill, weights or shards that are swapped under it, a byte that turns over in the store, a clock that is a year off, too
little memory, a full disk, a gc without grace, two repairs. Then it looks: what a version says must be true, whatever
happened. A repair and a plain run must bring back exactly what a store without any fault has, and a second look must
find nothing. Prints a line a round and a table; exit 1 when anything was lost, invented, half-published or wrongly
certified.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.making import sample, write_prior, write_shard, zipbatch  # noqa: E402
from tests.meddling import alike, swapped  # noqa: E402
from zipbatch.atomic import sha256_file  # noqa: E402
from zipbatch.errors import DataError  # noqa: E402
from zipbatch.storage import StoragePath, storage_path  # noqa: E402
from zipbatch.store import Store  # noqa: E402

SHARDS, IMAGES = 5, 4
YEAR_S = 365 * 86_400
CLOCK = """import os, time
_off = float(os.environ["CAMPAIGN_CLOCK_OFF_S"])
_time, _ns = time.time, time.time_ns
time.time = lambda: _time() + _off
time.time_ns = lambda: _ns() + int(_off * 1e9)
"""


class Broken(Exception):
    """A promise that did not hold."""


def check(holds: object, what: str) -> None:
    if not holds:
        raise Broken(what)


class World:
    """Inputs in two forms each, and what is made of them where nothing goes wrong."""

    def __init__(self, root: Path, store: StoragePath, rng: random.Random) -> None:
        self.root, self.store, self.rng = root, store, rng
        self.data, self.prior = root / "in", root / "prior"
        self.forms = [[self._shard(number, form) for form in range(2)] for number in range(SHARDS)]
        size = max(file.stat().st_size for forms in self.forms for file in forms)
        for file in (file for forms in self.forms for file in forms):
            file.write_bytes(file.read_bytes() + bytes(size - file.stat().st_size))
        self.priors = [write_prior(root / f"prior-{form}", seed=form) / _WEIGHTS for form in range(2)]
        shutil.copytree(root / "prior-0", self.prior)
        self.data.mkdir()
        self.form = [0] * SHARDS
        for number in range(SHARDS):
            self.put(number, 0)
        self.true = self._truth()
        (root / "clock").mkdir()
        (root / "clock" / "sitecustomize.py").write_text(CLOCK)
        self.usual_s = 4.0

    def _shard(self, number: int, form: int) -> Path:
        samples = [sample(f"s{number}_{i}", i % 3, seed=1000 * form + 10 * number + i) for i in range(IMAGES)]
        return write_shard(self.root / f"form-{form}" / f"test-{number:06d}.tar", samples)

    def _truth(self) -> dict[tuple[str, str], str]:
        """(prior's digest, input's digest) -> output's digest."""
        found: dict[tuple[str, str], str] = {}
        for form in range(2):
            for prior in range(2):
                store = self.root / f"true-{form}-{prior}"
                ran = zipbatch(*self._purify(self.root / f"form-{form}", self.root / f"prior-{prior}", store))
                check(ran.code == 0, ran.err)
                version = Store(store).versions.read("in")
                digest = str(version.header.prior_sha256)
                found |= {(digest, row.input): row.output for row in version.rows}
        return found

    def _purify(self, data: Path, prior: Path, store: StoragePath) -> list[object]:
        return [
            *("purify", data, "--name", "in", "--prior", prior, "--store", store, "--tag", "nightly"),
            *("--preset", "fast", "--transform", "blur:2", "--steps", 6, "--start-step", 900, "--batch-size", 2),
        ]

    @property
    def purify(self) -> list[object]:
        return self._purify(self.data, self.prior, self.store)

    def put(self, number: int, form: int) -> None:
        """Give a shard one of its forms, with a new time."""
        swapped(self.forms[number][form])(self.data / f"test-{number:06d}.tar")
        self.form[number] = form

    def start(self, command: Sequence[object], *, off_s: float = 0.0, **more: Any) -> subprocess.Popen[str]:
        env = dict(os.environ)
        if off_s:
            env |= {"PYTHONPATH": f"{self.root / 'clock'}:{ROOT}", "CAMPAIGN_CLOCK_OFF_S": str(off_s)}
        else:
            env["PYTHONPATH"] = str(ROOT)
        line = [sys.executable, "-m", "zipbatch", *map(str, command)]
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        return subprocess.Popen(line, env=env, cwd=self.root, **pipes, **more)

    def fresh(self, name: str) -> Path:
        """A place where nothing is yet."""
        return self.root / "out" / f"{name}-{self.rng.randrange(10**9)}"

    # ---- what must hold

    def check_versions(self, *, damaged: bool) -> None:
        """Whatever a version that can be read says is so; those that cannot be read were damaged by the round."""
        versions = Store(self.store).versions
        for version in versions.ids("in"):
            try:
                found = versions.read_id("in", version)
            except DataError as error:
                check(damaged, f"a version is damaged: {error}")
                continue
            for row in found.rows:
                true = self.true.get((str(found.header.prior_sha256), row.input))
                check(true == row.output, f"{version} certifies {row.output[:8]} for {row.input[:8]}")
                there = Store(self.store).objects.has(row.output)
                check(there or damaged, f"{version} lacks {row.output[:8]}")

    def heal(self) -> None:
        """A repair and a plain run: all there is of these inputs, and nothing that is wrong."""
        zipbatch("store", "verify", "--repair", "--store", self.store)
        for form, prior in itertools.product(
            range(2), range(2)
        ):  # what older versions have lost is made of their inputs
            again = self._purify(self.root / f"form-{form}", self.root / f"prior-{prior}", self.store)
            ran = zipbatch(*again, "--tag", f"whole-{form}-{prior}", "--no-latest")
            check(ran.code == 0, f"a run over older inputs after a repair: {ran.err[-600:]}")
        ran = zipbatch(*self.purify)
        check(ran.code == 0, f"a plain run after a repair: {ran.err[-600:]}")
        version = Store(self.store).versions.read("in@nightly")
        prior = str(version.header.prior_sha256)
        wanted = [sha256_file(self.forms[number][form]) for number, form in enumerate(self.form)]
        check([row.input for row in version.rows] == wanted, "the tag is not at the version of these inputs")
        check(
            all(self.true[prior, row.input] == row.output for row in version.rows), "another output than the true one"
        )
        ran = zipbatch("store", "verify", "--store", self.store)
        check(ran.code == 0, f"a look after the repair: {ran.out[-600:]}")
        out = self.fresh("export")
        check(zipbatch("store", "export", "in@nightly", out, "--store", self.store).code == 0, "export")
        check(
            [sha256_file(out / row.shard) for row in version.rows] == [row.output for row in version.rows], "exported"
        )


_WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


def _kill(world: World, process: subprocess.Popen[str], how: int = signal.SIGKILL) -> int:
    """End a command at some time in its life."""
    try:
        process.wait(world.rng.uniform(0.3, 1.0) * world.usual_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, how)
    process.communicate(timeout=120)
    return process.returncode


def _mutated(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :]


def _files(world: World, folder: str, pattern: str) -> list[Any]:
    root: Any = world.store
    return [file for file in (root / folder).rglob(pattern) if file.is_file() and not file.name.startswith(".")]


def _flip(world: World, folder: str, pattern: str) -> bool:
    """Turn over one bit in one file of the store; size and, on a disk, mtime stay."""
    if not (files := _files(world, folder, pattern)):
        return False
    file = world.rng.choice(sorted(files))
    data = _mutated(file.read_bytes(), world.rng)
    if isinstance(file, Path):
        times = file.stat()
        file.chmod(0o644)
        file.write_bytes(data)
        os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    else:
        file.write_bytes(data)
    return True


def kill_purify(world: World) -> bool:
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    _kill(world, world.start(world.purify), world.rng.choice([signal.SIGKILL, signal.SIGTERM]))
    return False


def kill_a_command_and_run_it_again(world: World) -> bool:
    """What it was to make is made by the second run."""
    out = world.fresh("made")
    commands: list[list[object]] = [
        ["store", "export", "in@nightly", out, "--store", world.store],
        ["store", "export", "in@nightly", out, "--as", "images", "--store", world.store],
        ["poison", world.data, "--attack", "badnets", "--out", out],
    ]
    command = world.rng.choice(commands)
    _kill(world, world.start(command))
    ran = zipbatch(*command)
    check(ran.code == 0, f"{command[:2]} again: {ran.err[-500:]}")
    return False


def swap_the_prior(world: World) -> bool:
    """Other weights under the same name, while workers start and work."""
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    workers = ["--workers", 2] if world.rng.random() < 0.2 else []
    process = world.start([*world.purify, *workers])
    for _ in range(world.rng.randrange(1, 4)):
        time.sleep(world.rng.uniform(0, 0.5) * world.usual_s)
        swapped(world.priors[world.rng.randrange(2)])(world.prior / _WEIGHTS)
    process.communicate(timeout=240)
    return False


def swap_a_shard(world: World) -> bool:
    """Another content of the same size and mtime, while a purify runs or between two."""
    process = world.start(world.purify) if world.rng.random() < 0.7 else None
    time.sleep(world.rng.uniform(0, 1) * world.usual_s if process else 0)
    number = world.rng.randrange(SHARDS)
    world.form[number] = 1 - world.form[number]
    alike(world.forms[number][world.form[number]])(world.data / f"test-{number:06d}.tar")
    if process is not None:
        process.communicate(timeout=240)
    return False


def flip_in_the_store(world: World) -> bool:
    """Then run what reads it: it says so, or does without."""
    kinds = [
        ("objects", "*.tar"),
        ("versions", "*.json"),
        ("versions", "*.jsonl.gz"),
        ("tasks", "*.json"),
        ("tags", "*"),
    ]
    folder, pattern = world.rng.choice(kinds)
    flipped = _flip(world, folder, pattern)
    out = world.fresh("exported")
    if world.rng.random() < 0.5:
        world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
        zipbatch(*world.purify)
    elif zipbatch("store", "export", "in@nightly", out, "--store", world.store).code == 0:
        made = {sha256_file(file) for file in out.glob("*.tar")}
        check(made <= set(world.true.values()), "export handed out damage")
    return flipped


def clock_off(world: World) -> bool:
    """A run with the clock a year ahead, or behind; the next one, with the right time, has its tag (``heal``)."""
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    process = world.start(world.purify, off_s=world.rng.choice([YEAR_S, -YEAR_S, 7200]))
    _, told = process.communicate(timeout=240)
    check(process.returncode == 0 or "stays at" in told, f"exit {process.returncode}: {told[-500:]}")
    return False


def little_memory(world: World) -> bool:
    """An address space in which Python starts, but hardly anything fits."""
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    limit = int(world.rng.uniform(1.2, 6) * 1024**3)

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    process = world.start(world.purify, preexec_fn=limited)
    _, told = process.communicate(timeout=240)
    check("internal error" not in told, told[-500:])
    return False


def full_disk(world: World) -> bool:
    """No file may grow beyond some size."""
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    limit = world.rng.randrange(1, 40_000)

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    out = world.fresh("small")
    command = world.rng.choice(
        [world.purify, ["store", "export", "in@nightly", out, "--as", "images", "--store", world.store]]
    )
    process = world.start(command, preexec_fn=limited)
    _, told = process.communicate(timeout=240)
    check("internal error" not in told, told[-500:])
    check(process.returncode == 0 or not out.exists(), "half an export")
    return False


def gc_beside(world: World) -> bool:
    world.put(world.rng.randrange(SHARDS), world.rng.randrange(2))
    gc = [
        "store",
        "gc",
        "--grace",
        "0s",
        "--versions",
        "untagged",
        "--older-than",
        "0s",
        "--yes",
        "--store",
        world.store,
    ]
    process = world.start(world.purify)
    while process.poll() is None:
        ran = zipbatch(*gc)
        check("internal error" not in ran.err, ran.err[-500:])
    _, told = process.communicate(timeout=10)
    check("internal error" not in told, told[-500:])
    return False


def repairs_beside(world: World) -> bool:
    """A damaged object, two repairs and a purify at once."""
    flipped = _flip(world, "objects", "*.tar")
    process = world.start(world.purify)
    with ThreadPoolExecutor(2) as pool:
        others = [world.start(["store", "verify", "--repair", "--store", world.store]) for _ in range(2)]
        told = [each[1] for each in pool.map(lambda each: each.communicate(timeout=240), [process, *others])]
    check(not any("internal error" in each for each in told), str(told)[-800:])
    return flipped


KINDS: dict[str, Callable[[World], bool]] = {
    "kill purify": kill_purify,
    "kill, run again": kill_a_command_and_run_it_again,
    "swap the prior": swap_the_prior,
    "swap a shard": swap_a_shard,
    "flip in the store": flip_in_the_store,
    "clock off": clock_off,
    "little memory": little_memory,
    "full disk": full_disk,
    "gc beside": gc_beside,
    "repairs beside": repairs_beside,
}
"""Each gives whether it has damaged the store itself, so that a version may lack something until it is healed."""


def campaign(root: Path, store: StoragePath, *, rounds: int, seed: int, only: str | None = None) -> list[str]:
    """What was broken, a text each."""
    rng = random.Random(seed)
    world, broken, counts = World(root, store, rng), list[str](), Counter[str]()
    world.heal()
    began = time.monotonic()
    world.start(["store", "verify", "--store", store]).communicate(timeout=240)
    world.usual_s = 1.3 * (time.monotonic() - began)
    kinds = [only] if only else list(KINDS)
    for number in range(rounds):
        kind = kinds[number % len(kinds)]
        try:
            damaged = KINDS[kind](world)
            world.check_versions(damaged=damaged)
            world.heal()
            how = "ok"
        except Exception as error:  # a finding
            how = f"BROKEN: {error}" if isinstance(error, Broken) else traceback.format_exc()
            broken.append(f"round {number} (seed {seed}), {kind}: {how}")
            world.store = store = _another(store)
        counts[kind] += 1
        print(f"{number:4} {kind:18} {how}", flush=True)
    print(", ".join(f"{kind}: {count}" for kind, count in counts.items()))
    print(f"{rounds} rounds, {len(broken)} broken promises")
    return broken


def _another(store: StoragePath) -> StoragePath:
    """A new store, so that one broken promise is told once."""
    return store.with_name(f"{store.name}-{len(store.name)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--s3", action="store_true", help="the store is in S3 (moto, on this machine)")
    parser.add_argument("--only", choices=list(KINDS), default=None)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        os.environ["ZIPBATCH_CACHE"] = str(root / "cache")
        store: StoragePath = root / "pur"
        if asked.s3:
            store = _s3()
        return 1 if campaign(root, store, rounds=asked.rounds, seed=asked.seed, only=asked.only) else 0


def _s3() -> StoragePath:
    from tests.object_store import BUCKET, SECRET, S3Path, S3Server

    server = S3Server()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "AKIA-test",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.url,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    }
    server.client().create_bucket(Bucket=BUCKET)
    S3Path.server = server
    assert storage_path(f"s3://{BUCKET}/x")
    return S3Path.fresh()


if __name__ == "__main__":
    sys.exit(main())
