"""Keys that sign and check: Ed25519 and ECDSA P-256 in PEM files, by ``cryptography`` (the extra ``signing``)."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from zipbatch import storage
from zipbatch.errors import UsageError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    PrivateKey = Ed25519PrivateKey | EllipticCurvePrivateKey
    PublicKey = Ed25519PublicKey | EllipticCurvePublicKey

PASSWORD = "ZIPBATCH_KEY_PASSWORD"  # noqa: S105  the variable's name
_MAX_PEM_BYTES = 64 * 1024
_FIT = "Ed25519 or ECDSA P-256"
_MAKE = "make one with: openssl genpkey -algorithm ed25519 -out key.pem"


@dataclass(frozen=True)
class Verifier:
    """A public key."""

    key: PublicKey

    @cached_property
    def pem(self) -> str:
        """As text."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        return self.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @cached_property
    def fingerprint(self) -> str:
        """Hex SHA-256 of its SubjectPublicKeyInfo in DER: of what ``openssl pkey -pubin -outform DER`` writes."""
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        data = self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        return hashlib.sha256(data).hexdigest()

    def has_signed(self, data: bytes, signature: bytes) -> bool:
        """Whether the signature is this key's, of these bytes."""
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        try:
            if isinstance(self.key, Ed25519PublicKey):
                self.key.verify(signature, data)
            else:
                self.key.verify(signature, data, _ecdsa())
        except InvalidSignature:
            return False
        return True


@dataclass(frozen=True)
class Signer:
    """A private key, which is shown nowhere."""

    _key: PrivateKey

    def __repr__(self) -> str:
        return f"Signer({self.verifier.fingerprint})"

    @cached_property
    def verifier(self) -> Verifier:
        """Its public half."""
        return Verifier(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        """A signature of these bytes."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(data)
        return self._key.sign(data, _ecdsa())


def read_signer(path: Path) -> Signer:
    """The private key in a PEM file; the password of an encrypted one is in the environment, under ``PASSWORD``.

    Raises:
        UsageError: there is none, it is of another kind, or the password is missing or wrong.
    """
    _check_installed()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    data = _pem(path)
    if b"PRIVATE KEY-----" not in data:
        raise UsageError(f"{path}: holds no private key; {_MAKE}")
    password = os.environ.get(PASSWORD)
    locked = b"ENCRYPTED" in data
    if locked and not password:
        raise UsageError(f"{path}: is encrypted; set {PASSWORD} to its password")
    try:
        key = load_pem_private_key(data, password.encode() if locked and password else None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if locked:
            raise UsageError(f"{path}: cannot be read with the password in {PASSWORD}; set the right one") from None
        raise UsageError(f"{path}: is no private key that can be read; {_MAKE}") from None
    return Signer(_fit_private(key, path))


def read_verifier(path: Path) -> Verifier:
    """The public key in a PEM file.

    Raises:
        UsageError: there is none, or it is of another kind.
    """
    _check_installed()
    data = _pem(path)
    if b"PRIVATE KEY-----" in data:
        raise UsageError(
            f"{path}: is a private key; name its public half: openssl pkey -in {path} -pubout -out key.pub.pem"
        )
    try:
        return parse_verifier(data)
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error


def parse_verifier(pem: bytes) -> Verifier:
    """The public key in PEM text.

    Raises:
        ValueError: it is none, or of another kind.
        UsageError: ``cryptography`` is not installed.
    """
    _check_installed()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is no public key in PEM") from None
    if isinstance(key, Ed25519PublicKey) or (
        isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)
    ):
        return Verifier(key)
    raise ValueError(f"is a key of another kind; it must be {_FIT}")


def _fit_private(key: object, path: Path) -> PrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    if isinstance(key, Ed25519PrivateKey):
        return key
    if isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1):
        return key
    raise UsageError(f"{path}: is a key of another kind; it must be {_FIT}; {_MAKE}")


def _pem(path: Path) -> bytes:
    try:
        return storage.read_bytes(path, limit=_MAX_PEM_BYTES)
    except FileNotFoundError as error:
        raise UsageError(f"{path}: no such file; {_MAKE}") from error
    except ValueError as error:
        raise UsageError(f"{path}: is no PEM file ({error}); {_MAKE}") from error


def _ecdsa() -> ECDSA:
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    return ECDSA(SHA256())


def _check_installed() -> None:
    try:
        import cryptography  # noqa: F401
    except ImportError as error:
        raise UsageError(
            "signatures need cryptography, which is not installed: pip install 'zipbatch[signing]'"
        ) from error
