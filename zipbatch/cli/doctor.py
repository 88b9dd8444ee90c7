"""``zipbatch doctor``."""

from __future__ import annotations

from dataclasses import asdict, replace

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.errors import WorkFailed
from zipbatch.spelling import as_read

_MARKS = {"ok": "ok     ", "warning": "warning", "failed": "FAILED "}


@click.command()
@click.option("--store", metavar="DIR|URL", help="Look at this store, too.")
@click.option("--prior", metavar="DIR|FILE.pt|URL|hub:NAME[@REV]", help="Look at this diffusion model, too.")
@click.option("--address", metavar="HOST:PORT", help="Look at this running Ray cluster, too.")
@JSON
def doctor(store: str | None, prior: str | None, address: str | None, as_json: bool) -> None:
    """Is this machine fit for the work? Says what to do about each thing that is not.

    Looks at Python, torch, CUDA and its GPUs, memory, Ray, shared memory, room for temporary files and limits; at a
    store, a diffusion model and a Ray cluster where they are named or are defaults ('zipbatch config'). Changes
    nothing. Exit 0 where work can be done, 1 where something would make it fail.

    \b
    Examples:
      zipbatch doctor
      zipbatch doctor --store pur/ --prior embedded
      zipbatch doctor --address head:6379 --json
    """
    from zipbatch.stages.doctor.run import examine

    findings = []
    for found in examine(store=store, prior=prior, address=address):
        one = replace(found, text=as_read(found.text), next_step=as_read(found.next_step))
        findings.append(one)
        if not as_json:
            click.echo(f"{_MARKS[one.state]}  {one.check:<13}  {one.text}")
            if one.next_step:
                click.echo(f"{'':9}{'':13}  -> {one.next_step}")
    failed = [one for one in findings if one.state == "failed"]
    if as_json:
        emit_json({"fit": not failed, "findings": [asdict(one) for one in findings]})
    if failed:
        raise WorkFailed(f"{len(failed)} of {len(findings)} checks failed; see above for what to do")
