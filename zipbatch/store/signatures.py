"""Signatures of versions: who vouches for a header and a list, and with them for every object that the list names.

A version's envelopes lie beside it (``attestation.signature_name``) and go with it. Each is of the bytes of its header
and its list as they are in the store.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from zipbatch.errors import DataError
from zipbatch.store.attestation import (
    MAX_BYTES,
    SUFFIX,
    Envelope,
    packed,
    read_envelopes,
    read_statement,
    signature_name,
    statement,
)
from zipbatch.store.headers import MAX_HEADER_BYTES
from zipbatch.store.lists import MAX_BYTES as MAX_LIST_BYTES
from zipbatch.store.signing import Signer, parse_verifier
from zipbatch.store.store import Store
from zipbatch.store.versions import Version


@dataclass(frozen=True)
class Signature:
    """Who signed, by the fingerprint of the key, and what is wrong with it; None where it is sound."""

    fingerprint: str
    fault: str | None = None


def sign_version(store: Store, version: Version, signer: Signer) -> bool:
    """Sign a version that was read whole; others' signatures stay, an unsound one of the same key is replaced.

    Returns:
        Whether it is new: a sound one of this key may be there already.

    Raises:
        DataError: the version was removed or changed meanwhile, or its signatures are damaged.
    """
    dataset, id_ = version.header.dataset, version.header.version
    files, name = version_files(store, dataset, id_), signature_name(dataset, id_)
    others = []
    for envelope in envelopes(store, dataset, id_):
        if envelope.key != signer.verifier.fingerprint:
            others.append(envelope)
        elif checked(envelope, files).fault is None:
            return False
    about = {"dataset": dataset, "version": id_, "method": version.header.purifier["method"]}
    payload = statement(files, {**about, "counts": version.header.counts}, public_key=signer.verifier.pem)
    unsigned = Envelope(payload, b"", signer.verifier.fingerprint)
    store.write_file(name, packed([*others, Envelope(payload, signer.sign(unsigned.signed), unsigned.key)]))
    return True


def check_signatures(store: Store, dataset: str, version: str) -> tuple[Signature, ...]:
    """Each signature of a version, held against its files as they are now; none where nobody signed.

    Raises:
        DataError: the version's files are missing, or its signatures are damaged.
        UsageError: ``cryptography`` is not installed.
    """
    found = envelopes(store, dataset, version)
    files = version_files(store, dataset, version) if found else {}
    return tuple(checked(envelope, files) for envelope in found)


def checked(envelope: Envelope, files: Mapping[str, bytes]) -> Signature:
    """An envelope held against the key that it names and the files that it should be of.

    Raises:
        UsageError: ``cryptography`` is not installed.
    """
    try:
        said = read_statement(envelope.payload)
        verifier = parse_verifier(said.public_key.encode())
    except ValueError as error:
        return Signature(envelope.key, f"is not to be read: {error}")
    if verifier.fingerprint != envelope.key or not verifier.has_signed(envelope.signed, envelope.signature):
        return Signature(envelope.key, "is not of the key that it names, or was changed")
    return Signature(envelope.key, subject_fault(said.subjects, files))


def subject_fault(subjects: Mapping[str, str], files: Mapping[str, bytes]) -> str | None:
    """Why digests that were signed are not those of the files; None where they are."""
    if set(subjects) != set(files):
        return "is of another version"
    changed = [name for name, data in files.items() if hashlib.sha256(data).hexdigest() != subjects[name]]
    return f"is of another {' and '.join(changed)}: changed since it was signed" if changed else None


def envelopes(store: Store, dataset: str, version: str) -> list[Envelope]:
    """The envelopes of a version, unchecked; empty where nobody signed.

    Raises:
        DataError: they are damaged.
    """
    name = signature_name(dataset, version)
    try:
        data = store.read_file(name, limit=MAX_BYTES)
        return [] if data is None else read_envelopes(data)
    except ValueError as error:
        raise DataError(
            store.root / name, f"damaged signatures: {error}; remove the file and sign the version again"
        ) from error


def signed_by(store: Store, dataset: str, version: str) -> list[str]:
    """Fingerprints of those who are said to have signed a version; nothing is checked, damage is nobody."""
    try:
        return [envelope.key for envelope in envelopes(store, dataset, version)]
    except DataError:
        return []


def version_files(store: Store, dataset: str, version: str) -> dict[str, bytes]:
    """Name -> bytes of a version's header and list.

    Raises:
        DataError: one is missing or too large.
    """
    limits = {f"{version}.json": MAX_HEADER_BYTES, f"{version}.jsonl.gz": MAX_LIST_BYTES}
    found = {}
    for file, limit in limits.items():
        name = f"versions/{dataset}/{file}"
        try:
            data = store.read_file(name, limit=limit)
        except ValueError as error:
            raise DataError(store.root / name, f"damaged version: {error}") from error
        if data is None:
            raise DataError(store.root / name, "missing: was the version removed?")
        found[f"{dataset}/{file}"] = data
    return found


def signed_files(store: Store, dataset: str, version: str) -> dict[str, bytes]:
    """Name -> bytes of a signed version's header, list and envelopes, to be checked elsewhere; empty where unsigned.

    Raises:
        DataError: one is missing or damaged.
    """
    found = envelopes(store, dataset, version)
    if not found:
        return {}
    files = {name.rpartition("/")[2]: data for name, data in version_files(store, dataset, version).items()}
    return {**files, f"{version}{SUFFIX}": packed(found)}


def sweep_signatures(store: Store, *, older_than_ns: int) -> None:
    """Remove old signatures of versions that are not there any more: earlier releases left them behind."""
    files = {file.name: file for file in store.list_files("versions")}
    for name, file in files.items():
        version = name.removesuffix(SUFFIX)
        gone = f"{version}.json" not in files and f"{version}.jsonl.gz" not in files
        if version != name and gone and file.mtime_ns < older_than_ns:
            store.remove_file(name)
