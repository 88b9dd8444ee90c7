"""Signed statements about versions: in-toto Statement v1 in DSSE envelopes, an envelope a line. No cryptography here.

https://github.com/in-toto/attestation (v1), https://github.com/secure-systems-lab/dsse (v1).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from zipbatch import atomic

MAX_BYTES = 4 * 1024**2
"""Of all envelopes of a version: some thousands."""
SUFFIX = ".sig.jsonl"
PREDICATE = "urn:zipbatch:version:v1"
_KEY = re.compile(r"[0-9a-f]{64}")
_PAYLOAD = "application/vnd.in-toto+json"
_STATEMENT = "https://in-toto.io/Statement/v1"


@dataclass(frozen=True)
class Envelope:
    """A statement as it was signed, its signature, and the fingerprint of the key that is said to have made it."""

    payload: bytes
    signature: bytes
    key: str

    @property
    def signed(self) -> bytes:
        """What the signature is of: DSSE's pre-authentication encoding."""
        return b"DSSEv1 %d %s %d %s" % (len(_PAYLOAD), _PAYLOAD.encode(), len(self.payload), self.payload)

    def line(self) -> bytes:
        """Its line in a version's file."""
        signature = {"keyid": self.key, "sig": base64.b64encode(self.signature).decode()}
        payload = base64.b64encode(self.payload).decode()
        value = {"payload": payload, "payloadType": _PAYLOAD, "signatures": [signature]}
        return atomic.canonical_json(value) + b"\n"


@dataclass(frozen=True)
class Statement:
    """What is said: the digests of files by their names, and the public key, PEM, of who says it."""

    subjects: Mapping[str, str]
    public_key: str


def signature_name(dataset: str, version: str) -> str:
    """The file of a store that holds the envelopes of a version."""
    return f"versions/{dataset}/{version}{SUFFIX}"


def statement(files: Mapping[str, bytes], about: Mapping[str, Any], *, public_key: str) -> bytes:
    """A statement about these files, canonical JSON.

    Args:
        files: name -> bytes.
        about: what else is said of them.
        public_key: PEM, of who will sign it.
    """
    subjects = [{"name": name, "digest": {"sha256": hashlib.sha256(data).hexdigest()}} for name, data in files.items()]
    predicate = {**about, "public_key": public_key}
    value = {"_type": _STATEMENT, "subject": subjects, "predicateType": PREDICATE, "predicate": predicate}
    return atomic.canonical_json(value)


def read_statement(payload: bytes) -> Statement:
    """What a payload says.

    Raises:
        ValueError: it is no such statement.
    """
    value = _json(payload)
    try:
        if (value["_type"], value["predicateType"]) != (_STATEMENT, PREDICATE):
            raise ValueError("a statement of another kind")
        subjects = {str(one["name"]): str(one["digest"]["sha256"]) for one in value["subject"]}
        return Statement(subjects, str(value["predicate"]["public_key"]))
    except (KeyError, TypeError) as error:
        raise ValueError(f"a statement that lacks {error}") from error


def packed(envelopes: Iterable[Envelope]) -> bytes:
    """The file of these envelopes."""
    return b"".join(envelope.line() for envelope in envelopes)


def read_envelopes(data: bytes) -> list[Envelope]:
    """The envelopes of a file.

    Raises:
        ValueError: a line is none, or there is none.
    """
    found = [_envelope(line) for line in data.splitlines()]
    if not found:
        raise ValueError("holds no signature")
    return found


def _envelope(line: bytes) -> Envelope:
    value = _json(line)
    try:
        (one,) = value["signatures"]
        if value["payloadType"] != _PAYLOAD:
            raise ValueError("an envelope of another kind")
        payload, signature = (base64.b64decode(text, validate=True) for text in (value["payload"], one["sig"]))
        if not _KEY.fullmatch(one["keyid"]):
            raise ValueError("an envelope whose keyid is no fingerprint")
        return Envelope(payload, signature, one["keyid"])
    except (KeyError, TypeError, binascii.Error) as error:
        raise ValueError(f"no DSSE envelope with one signature ({error})") from error


def _json(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except RecursionError as error:
        raise ValueError(str(error)) from error
    if not isinstance(value, dict):
        raise ValueError("no JSON object")  # noqa: TRY004 (one kind of error for damage)
    return value
