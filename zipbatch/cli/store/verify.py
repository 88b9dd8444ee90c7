"""``zipbatch store verify``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.render import screen
from zipbatch.cli.store.options import STORE
from zipbatch.errors import WorkFailed
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="[NAME[@TAG]]", required=False)
@STORE
@click.option("--repair", is_flag=True, help="Remove what is damaged; the next purify of the data makes it anew.")
@click.option("--signature", is_flag=True, help="Check the version NAME[@TAG] alone, and who signed it.")
@click.option("--key", type=click.Path(path_type=Path), metavar="KEY.pem", help="Public key that must have signed it.")
@JSON
def verify(
    reference: str | None, store: StoragePath, repair: bool, signature: bool, key: Path | None, as_json: bool
) -> None:
    """Check every byte against its digest and every reference. Exit 1 when something is wrong.

    With --signature, of one version: its header, its list, every byte of its objects, and its signatures. Without
    --key anybody's signature will do: compare the fingerprint that is printed with that of a key you trust.

    \b
    Examples:
      zipbatch store verify --store pur/
      zipbatch store verify cifar10-badnets@nightly --signature --key key.pub.pem --store pur/
    """
    if signature:
        if reference is None or repair:
            raise click.UsageError("--signature checks one version, and repairs nothing: name it, without --repair")
        _verify_signed(reference, store, key, as_json=as_json)
        return
    if reference is not None or key is not None:
        raise click.UsageError("NAME and --key go with --signature; without it the whole store is checked")
    _verify_store(store, repair=repair, as_json=as_json)


def _verify_store(store: StoragePath, *, repair: bool, as_json: bool) -> None:
    from zipbatch.store import Store
    from zipbatch.store import verify as run

    with screen() as shown:
        what = f"checking {store}"
        shown.begin(what)
        checked = run(Store(store), repair=repair, on_progress=shown.counter(what, "objects"))
    if as_json:
        emit_json(asdict(checked))
    else:
        for fault in checked.faults:
            click.echo(f"FAULT {fault.where}: {fault.reason}")
        click.echo(
            f"{store}: {checked.objects} objects, {checked.tasks} tasks, {checked.versions} versions, "
            f"{checked.tags} tags: {'all good' if not checked.faults else f'{len(checked.faults)} faults'}"
        )
    if checked.faults:
        first = "" if repair else "run verify --repair, then "
        raise WorkFailed(f"{len(checked.faults)} faults; {first}run purify again to compute damaged shards anew")


def _verify_signed(reference: str, store: StoragePath, key: Path | None, *, as_json: bool) -> None:
    from zipbatch.store import Store
    from zipbatch.store.signatures import check_signatures
    from zipbatch.store.signing import read_verifier
    from zipbatch.store.verify import verify_version

    wanted, opened = None if key is None else read_verifier(key).fingerprint, Store(store)
    version = opened.versions.read(reference)
    named, signed = version.reference, check_signatures(opened, version.header.dataset, version.header.version)
    with screen() as shown:
        what = f"checking {named}"
        shown.begin(what)
        damaged = verify_version(opened, version, on_progress=shown.counter(what, "objects"))
    faults = [f"{fault.where}: {fault.reason}" for fault in damaged]
    faults += [f"{named}: the signature of sha256:{one.fingerprint} {one.fault}" for one in signed if one.fault]
    sound = [one.fingerprint for one in signed if one.fault is None]
    if as_json:
        emit_json({"reference": named, "signed_by": sound, "faults": faults})
    else:
        for fault in faults:
            click.echo(f"FAULT {fault}")
        for who in sound:
            click.echo(f"{named}: signed by sha256:{who}")
    if faults:
        raise WorkFailed(f"{named}: {len(faults)} faults; do not rely on it: purify again, and sign what comes of it")
    if not sound:
        raise WorkFailed(
            f"{named}: nobody has signed it; 'zipbatch store sign {reference} --key KEY.pem --store {store}' does"
        )
    if wanted is not None and wanted not in sound:
        raise WorkFailed(f"{named}: not signed by sha256:{wanted} ({key}), but by others alone")
