"""``zipbatch store sign``."""

from __future__ import annotations

from pathlib import Path

import click

from zipbatch.cli.options import JSON, emit_json
from zipbatch.cli.store.options import STORE
from zipbatch.errors import WorkFailed
from zipbatch.storage import StoragePath


@click.command()
@click.argument("reference", metavar="NAME[@TAG]")
@STORE
@click.option(
    "--key", required=True, type=click.Path(path_type=Path), metavar="KEY.pem", help="Private key that signs."
)
@JSON
def sign(reference: str, store: StoragePath, key: Path, as_json: bool) -> None:
    """Sign a version: its header and its list, which names every shard by digest.

    The key is Ed25519 or ECDSA P-256, in PEM. The password of an encrypted one is taken from ZIPBATCH_KEY_PASSWORD.
    Several keys may sign one version. 'zipbatch store verify NAME --signature' checks. Needs pip install
    'zipbatch[signing]'.

    \b
    Examples:
      zipbatch store sign cifar10-badnets@nightly --key key.pem --store pur/
      zipbatch store verify cifar10-badnets@nightly --signature --key key.pub.pem --store pur/
    """
    from zipbatch.store import Store, lost_objects
    from zipbatch.store.signatures import sign_version
    from zipbatch.store.signing import read_signer

    signer, opened = read_signer(key), Store(store)
    version = opened.versions.read(reference)
    if lost := lost_objects(opened, [name for row in version.rows for name in row.objects]):
        raise WorkFailed(f"{version.reference}: not signed, object {min(lost)} is missing; run purify again, then sign")
    new, who = sign_version(opened, version, signer), signer.verifier.fingerprint
    if as_json:
        emit_json({"reference": version.reference, "signer": who, "new": new})
        return
    click.echo(f"{version.reference}: {'signed' if new else 'signed before'} by sha256:{who}")
