"""``store sign`` and ``store verify --signature``: who vouches for a version, and that a change is found."""

from __future__ import annotations

import base64
import gzip
import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.making import files_below, sample, write_shard, zipbatch
from zipbatch.storage import StoragePath
from zipbatch.store.attestation import Envelope, read_envelopes
from zipbatch.store.seal import sealed

pytest.importorskip("cryptography", reason="pip install 'zipbatch[signing]'")

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

BLUR = ("--purifier", "blur", "--device", "cpu")
PASSWORD = "hush-4711"  # noqa: S105  of a key that is made here


def write_key(folder: Path, name: str, key: object, password: str | None = None) -> Path:
    """``<name>.pem`` and ``<name>.pub.pem``."""
    folder.mkdir(exist_ok=True)
    locked = NoEncryption() if password is None else BestAvailableEncryption(password.encode())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    write_key(folder, "ed", ed25519.Ed25519PrivateKey.generate())
    write_key(folder, "ec", ec.generate_private_key(ec.SECP256R1()))
    write_key(folder, "locked", ed25519.Ed25519PrivateKey.generate(), PASSWORD)
    write_key(folder, "p384", ec.generate_private_key(ec.SECP384R1()))
    write_key(folder, "rsa", rsa.generate_private_key(65537, 2048))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with an unsigned version."""
    root = tmp_path_factory.mktemp("signing")
    for day in range(2):
        write_shard(root / "in" / f"day-{day}.tar", [sample(f"k{day}", 0, seed=day)])
    assert zipbatch("purify", root / "in", *BLUR, "--store", root / "pur").code == 0
    return root / "pur"


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pur"))


def sign(store: Path, key: Path) -> str:
    """The fingerprint of who signed."""
    ran = zipbatch("store", "sign", "in", "--key", key, "--store", store, "--json")
    assert ran.code == 0, ran.err
    return str(ran.json["signer"])


def verify(store: Path, *more: object) -> tuple[int, str]:
    ran = zipbatch("store", "verify", "in", "--signature", *more, "--store", store)
    return ran.code, ran.out + ran.err


def version_file(store: Path, suffix: str) -> Path:
    (found,) = (file for file in (store / "versions" / "in").iterdir() if file.name.partition(".")[2] == suffix)
    return found


def rewritten(file: Path, data: bytes) -> None:
    file.chmod(file.stat().st_mode | stat.S_IWUSR)
    file.write_bytes(data)


@pytest.mark.parametrize("name", ["ed", "ec"])
def test_what_is_signed_is_verified_by_name_and_by_key(store: Path, keys: Path, name: str):
    who = sign(store, keys / f"{name}.pem")
    code, text = verify(store)
    assert (code, f"signed by sha256:{who}" in text) == (0, True)
    assert verify(store, "--key", keys / f"{name}.pub.pem")[0] == 0
    before = files_below(store)
    assert not zipbatch("store", "sign", "in", "--key", keys / f"{name}.pem", "--store", store, "--json").json["new"]
    assert files_below(store) == before
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_it_is_in_toto_in_dsse(store: Path, keys: Path):
    """As those two are specified, without our own reader."""
    sign(store, keys / "ed.pem")
    (line,) = version_file(store, "sig.jsonl").read_bytes().splitlines()
    envelope = json.loads(line)
    kind, payload = envelope["payloadType"], base64.b64decode(envelope["payload"])
    signed = f"DSSEv1 {len(kind)} {kind} {len(payload)} ".encode() + payload
    public = ed25519.Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    key = load_pem_public_key((keys / "ed.pub.pem").read_bytes())
    assert isinstance(key, public)
    key.verify(base64.b64decode(envelope["signatures"][0]["sig"]), signed)
    said = json.loads(payload)
    assert (kind, said["_type"]) == ("application/vnd.in-toto+json", "https://in-toto.io/Statement/v1")
    assert [one["name"].partition(".")[2] for one in said["subject"]] == ["json", "jsonl.gz"]


def test_who_has_not_signed(store: Path, keys: Path):
    code, text = verify(store)
    assert (code, "nobody has signed it; 'zipbatch store sign in --key" in text) == (1, True)
    sign(store, keys / "ed.pem")
    code, text = verify(store, "--key", keys / "ec.pub.pem")
    assert (code, "not signed by sha256:" in text) == (1, True)


def test_several_sign_one_version(store: Path, keys: Path):
    both = {sign(store, keys / "ed.pem"), sign(store, keys / "ec.pem")}
    ran = zipbatch("store", "verify", "in", "--signature", "--store", store, "--json")
    assert (set(ran.json["signed_by"]), ran.json["faults"]) == (both, [])
    assert set(zipbatch("store", "show", "in", "--store", store, "--json").json["signed_by"]) == both
    assert all(who[:30] in zipbatch("store", "show", "in", "--store", store).out for who in both)
    assert "signed by: sha256:" in zipbatch("store", "diff", "in", "in", "--store", store).out


def other_start(store: Path) -> None:
    """A header that is sealed anew and says another time: nothing but a signature tells."""
    file = version_file(store, "json")
    value = json.loads(file.read_bytes())
    del value["seal"]
    rewritten(file, json.dumps(sealed({**value, "started": "2020-01-01T00:00:00+00:00"})).encode())


def other_compression(store: Path) -> None:
    file = version_file(store, "jsonl.gz")
    rewritten(file, gzip.compress(gzip.decompress(file.read_bytes()), 9, mtime=0))


def other_list(store: Path) -> None:
    file = version_file(store, "jsonl.gz")
    rewritten(file, gzip.compress(gzip.decompress(file.read_bytes()).replace(b"day-0", b"day-7"), mtime=0))


def other_object(store: Path) -> None:
    file = sorted((store / "objects").rglob("*.tar"))[0]
    data = bytearray(file.read_bytes())
    data[600] ^= 1
    rewritten(file, bytes(data))


def lost_object(store: Path) -> None:
    sorted((store / "objects").rglob("*.tar"))[0].unlink()


def changed_envelope(store: Path, change: Callable[[Envelope], Envelope]) -> None:
    file = version_file(store, "sig.jsonl")
    (envelope,) = read_envelopes(file.read_bytes())
    rewritten(file, change(envelope).line())


def other_payload(store: Path) -> None:
    changed_envelope(store, lambda e: Envelope(e.payload.replace(b'"blur"', b'"zip"'), e.signature, e.key))


def other_signature(store: Path) -> None:
    changed_envelope(store, lambda e: Envelope(e.payload, e.signature[::-1], e.key))


def other_name(store: Path) -> None:
    changed_envelope(store, lambda e: Envelope(e.payload, e.signature, "0" * 64))


def no_statement(store: Path) -> None:
    changed_envelope(store, lambda e: Envelope(b"{}", e.signature, e.key))


def no_envelope(store: Path) -> None:
    rewritten(version_file(store, "sig.jsonl"), b'{"payload": 3}\n')


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (other_start, "changed since it was signed"),
        (other_compression, "changed since it was signed"),
        (other_list, "damaged version"),
        (other_object, "its bytes are not those its name says"),
        (lost_object, "is missing or damaged"),
        (other_payload, "was changed"),
        (other_signature, "was changed"),
        (other_name, "was changed"),
        (no_statement, "is not to be read"),
        (no_envelope, "damaged signatures"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_was_tampered_with_is_found(store: Path, keys: Path, tamper: Callable[[Path], None], said: str):
    sign(store, keys / "ed.pem")
    tamper(store)
    code, text = verify(store, "--key", keys / "ed.pub.pem")
    assert (code, said in text) == (1, True), text


@pytest.mark.parametrize("tamper", [other_start, no_statement, no_envelope])
def test_verify_of_a_whole_store_tells_too_and_repair_leaves_it(
    store: Path, keys: Path, tamper: Callable[[Path], None]
):
    sign(store, keys / "ed.pem")
    tamper(store)
    ran = zipbatch("store", "verify", "--repair", "--store", store)
    assert (ran.code, "FAULT in@" in ran.out) == (1, True)
    assert version_file(store, "sig.jsonl").is_file()
    if tamper is other_start:
        sign(store, keys / "ed.pem")  # in place of the one that is of the header before
        assert verify(store)[0] == 0


def test_a_signature_of_another_version_is_none(store: Path, keys: Path, tmp_path: Path):
    sign(store, keys / "ed.pem")
    theirs = version_file(store, "sig.jsonl").read_bytes()
    write_shard(tmp_path / "new" / "day-9.tar", [sample("z", 0, seed=9)])
    assert zipbatch("purify", tmp_path / "new", *BLUR, "--name", "in", "--store", store).code == 0
    version = zipbatch("store", "show", "in", "--store", store, "--json").json["version"]
    (store / "versions" / "in" / f"{version}.sig.jsonl").write_bytes(theirs)
    code, text = verify(store)
    assert (code, "is of another version" in text) == (1, True)


def test_an_encrypted_key_takes_its_password_from_the_environment(
    store: Path, keys: Path, monkeypatch: pytest.MonkeyPatch
):
    command = ("-vv", "store", "sign", "in", "--key", keys / "locked.pem", "--store", store)
    ran = zipbatch(*command)
    assert (ran.code, "set ZIPBATCH_KEY_PASSWORD" in ran.err) == (2, True)
    monkeypatch.setenv("ZIPBATCH_KEY_PASSWORD", "wrong")
    assert (zipbatch(*command).code, len(list(store.rglob("*.sig.jsonl")))) == (2, 0)
    monkeypatch.setenv("ZIPBATCH_KEY_PASSWORD", PASSWORD)
    ran = zipbatch(*command)
    assert ran.code == 0, ran.err
    assert PASSWORD not in ran.out + ran.err
    assert "PRIVATE" not in ran.out + ran.err + "".join(map(str, files_below(store).values()))


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("sign", "missing.pem", "no such file; make one with: openssl"),
        ("sign", "ed.pub.pem", "holds no private key"),
        ("sign", "rsa.pem", "must be Ed25519 or ECDSA P-256"),
        ("sign", "p384.pem", "must be Ed25519 or ECDSA P-256"),
        ("verify", "ed.pem", "is a private key; name its public half"),
        ("verify", "rsa.pub.pem", "must be Ed25519 or ECDSA P-256"),
        ("verify", "p384.pub.pem", "must be Ed25519 or ECDSA P-256"),
    ],
)
def test_keys_that_will_not_do(store: Path, keys: Path, command: str, key: str, said: str):
    more = ("--signature",) if command == "verify" else ()
    ran = zipbatch("store", command, "in", *more, "--key", keys / key, "--store", store)
    assert (ran.code, said in ran.err) == (2, True), ran.err


def test_what_does_not_go_together(store: Path):
    for given in (("in",), ("--signature",), ("in", "--signature", "--repair"), ("--key", "k.pem")):
        assert zipbatch("store", "verify", *given, "--store", store).code == 2


def test_nothing_is_signed_that_lacks_objects(store: Path, keys: Path):
    lost_object(store)
    ran = zipbatch("store", "sign", "in", "--key", keys / "ed.pem", "--store", store)
    assert (ran.code, "is missing; run purify again, then sign" in ran.err) == (1, True)


def test_signatures_go_with_their_version(store: Path, keys: Path):
    sign(store, keys / "ed.pem")
    orphan = store / "versions" / "in" / f"{'0' * 20}.sig.jsonl"
    shutil.copy(version_file(store, "sig.jsonl"), orphan)
    for file in store.rglob("*"):
        os.utime(file, (1, 1))
    gc = ("store", "gc", "--store", store, "--grace", "1d", "--older-than", "0s", "--versions", "untagged", "--yes")
    assert zipbatch(*gc).code == 0
    assert not orphan.exists()
    assert verify(store)[0] == 0
    for tag in (store / "tags" / "in").iterdir():
        tag.unlink()
    assert zipbatch(*gc).code == 0
    assert [name for name in files_below(store) if name.startswith("versions")] == []


def test_an_export_carries_what_was_signed(store: Path, keys: Path, tmp_path: Path):
    before = ("store", "export", "in", tmp_path / "before", "--store", store)
    assert zipbatch(*before).code == 0
    sign(store, keys / "ed.pem")
    assert zipbatch("store", "export", "in", tmp_path / "out", "--store", store).code == 0
    for suffix in ("json", "jsonl.gz", "sig.jsonl"):
        file = version_file(store, suffix)
        assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    assert set(files_below(tmp_path / "out")) - set(files_below(tmp_path / "before")) == {
        version_file(store, suffix).name for suffix in ("json", "jsonl.gz", "sig.jsonl")
    }
    ran = zipbatch("purify", tmp_path / "out", *BLUR, "--store", tmp_path / "pur2")
    assert (ran.code, "not taken" in ran.err) == (0, False)


def test_without_the_package_it_says_which_extra(store: Path, keys: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "cryptography", None)
    ran = zipbatch("store", "sign", "in", "--key", keys / "ed.pem", "--store", store)
    assert (ran.code, "pip install 'zipbatch[signing]'" in ran.err) == (2, True)
    assert zipbatch("store", "verify", "--store", store).code == 0


def test_signing_in_any_kind_of_store(pur: StoragePath, keys: Path, tmp_path: Path):
    write_shard(tmp_path / "in" / "day-0.tar", [sample("k", 0, seed=1)])
    assert zipbatch("purify", tmp_path / "in", *BLUR, "--store", pur).code == 0
    ran = zipbatch("store", "sign", "in", "--key", keys / "ed.pem", "--store", pur)
    assert ran.code == 0, ran.err
    ran = zipbatch("store", "verify", "in", "--signature", "--key", keys / "ed.pub.pem", "--store", pur)
    assert ran.code == 0, ran.err
    assert zipbatch("store", "verify", "--store", pur).code == 0
