"""The crontab and the systemd units: checked by systemd itself, and run as cron runs them."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.making import write_source, zipbatch
from zipbatch.config import list_schedules

FILES = {file.name: file for file in list_schedules()}
REPOSITORY = Path(__file__).resolve().parent.parent.parent
SYSTEMD = shutil.which("systemd-analyze")


def cron_lines() -> tuple[dict[str, str], list[tuple[list[str], str]]]:
    """The variables of the crontab, and its entries: five fields of time, and the command."""
    variables: dict[str, str] = {}
    entries = []
    for line in FILES["crontab"].read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        if found := re.fullmatch(r"([A-Z]+)=(.*)", line):
            variables[found[1]] = found[2]
        else:
            *when, command = line.split(None, 5)
            entries.append((when, command))
    return variables, entries


def moved(command: str, folder: Path, prior: Path | None = None) -> str:
    """A command with its placeholders below ``folder``, the work done in its own process; without a prior it blurs."""
    wrapper = folder / "zipbatch"
    wrapper.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} -m zipbatch "$@"\n')
    wrapper.chmod(0o755)
    if prior is None:
        command = command.replace("--prior /srv/priors/mine", "--purifier blur").replace("--gpus 8", "")
    places = {
        "/opt/zipbatch/bin/zipbatch": wrapper,
        "/srv/priors/mine": prior or "",
        "/srv": folder,
        "/var/lib/zipbatch": folder,
        "/var/lib/node_exporter/textfile": folder,
        "--gpus 8": "--workers 0 --steps 2",
    }
    for placeholder, place in places.items():
        command = command.replace(placeholder, str(place))
    return command


def test_cron_entries_are_well_formed():
    variables, entries = cron_lines()
    assert {"MAILTO", "PATH", "SHELL"} == variables.keys()
    assert len(entries) == 2
    for when, command in entries:
        for field, low, high in zip(when, (0, 0, 1, 1, 0), (59, 23, 31, 12, 7), strict=True):
            assert field == "*" or low <= int(field) <= high
        assert "%" not in command, "cron would end the command there"
        assert all(word.startswith("/") for word in shlex.split(command) if "/" in word), "cron has no working folder"


def test_cron_runs_it(tmp_path: Path):
    """As cron does: /bin/sh, its bare environment, nobody's terminal; no output is no mail."""
    write_source(tmp_path / "incoming", counts={"test": 4})
    variables, entries = cron_lines()
    del variables["MAILTO"]
    for _, command in entries:
        ran = subprocess.run(
            [variables["SHELL"], "-c", moved(command, tmp_path)],
            cwd=tmp_path,
            env={"HOME": str(tmp_path), "LOGNAME": "zipbatch", **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    summary = json.loads((tmp_path / "purify.json").read_bytes())
    assert (summary["outcome"], summary["dataset"], summary["tags"]) == ("done", "incoming", ["nightly", "latest"])
    assert "zipbatch_last_success_timestamp_seconds" in (tmp_path / "zipbatch-purify.prom").read_text()
    (tmp_path / "incoming" / "test-000001.tar").write_text("no tar")
    ran = subprocess.run(
        ["/bin/sh", "-c", moved(entries[0][1], tmp_path)],
        cwd=tmp_path,
        env={"HOME": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "test-000001.tar" in ran.stderr


def exec_start() -> str:
    text = FILES["zipbatch-purify.service"].read_text().replace("\\\n", "")
    (line,) = re.findall(r"^ExecStart=(.*)$", text, re.MULTILINE)
    return line


def test_the_service_starts_a_command_that_exists(prior: Path, tmp_path: Path):
    write_source(tmp_path / "incoming", counts={"test": 4})
    words = shlex.split(moved(exec_start(), tmp_path, prior))
    ran = zipbatch(*words[1:], "--dry-run", "--json")
    assert ran.code == 0, ran.err
    assert ran.json["to_compute"] == 2


@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze, which comes with systemd")
def test_systemd_accepts_the_units(tmp_path: Path):
    command = tmp_path / "zipbatch"
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    units = []
    for name in ("zipbatch-purify.service", "zipbatch-purify.timer"):
        units.append(tmp_path / name)
        units[-1].write_text(FILES[name].read_text().replace("/opt/zipbatch/bin/zipbatch", str(command)))
    ran = subprocess.run([SYSTEMD, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    units[0].write_text(units[0].read_text().replace("ProtectSystem=strict", "ProtectSystem=stricter"))
    ran = subprocess.run([SYSTEMD, "verify", "--man=no", *units], capture_output=True, text=True, check=False)
    assert "protect system" in ran.stderr, "the check would not notice a mistake"


@pytest.mark.skipif(SYSTEMD is None, reason="needs systemd-analyze, which comes with systemd")
def test_systemd_can_read_the_timer():
    (when,) = re.findall(r"^OnCalendar=(.*)$", FILES["zipbatch-purify.timer"].read_text(), re.MULTILINE)
    subprocess.run([SYSTEMD, "calendar", when], check=True, capture_output=True)
    (delay,) = re.findall(r"^RandomizedDelaySec=(.*)$", FILES["zipbatch-purify.timer"].read_text(), re.MULTILINE)
    subprocess.run([SYSTEMD, "timespan", delay], check=True, capture_output=True)


def test_every_wrapper_says_what_it_is_for():
    rows = zipbatch("ls", "schedules", "--json").json["schedules"]
    assert {row["name"] for row in rows} == set(FILES)
    for row in rows:
        assert re.match(r"[A-Z].{20,}\.$", row["about"]), row
        assert Path(row["file"]).is_file()
