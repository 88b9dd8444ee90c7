"""One target for each parser: seeds that the real writers made, and how the parser is asked."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import socket
import struct
import tarfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import webdataset as wds
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from PIL import Image
from safetensors.torch import save

from tests.archives import cifar10_files, write_cifar10_tar, write_gtsrb
from tests.attacks.stamping import stamp
from tests.foreign import attack_result
from tests.fuzz.mutate import JPEG, JSON, JSON_GZ, LINES, LINES_GZ, PNG, SAFETENSORS, TAR, TAR_GZ, WEBP, ZIP, Codec
from tests.making import (
    picture,
    purifier_spec,
    sample,
    write_prior,
    write_shard,
    write_source,
    write_tar,
    write_victim,
    zipbatch,
)
from zipbatch import images
from zipbatch.arrays import from_npy
from zipbatch.attacks.lf import LF
from zipbatch.checkpoints import open_prior, open_victim
from zipbatch.checkpoints.backdoorbench import read_attack_result
from zipbatch.checkpoints.onnx import OnnxClassifier
from zipbatch.checkpoints.prior import load_prior
from zipbatch.checkpoints.tensors import read_tensors
from zipbatch.checkpoints.victim import load_victim
from zipbatch.cluster import WorkerContext
from zipbatch.config import VictimConfig, load_config, parse_scalar
from zipbatch.datasets import open_dataset
from zipbatch.datasets.base import read_classes
from zipbatch.datasets.cifar10 import find_cifar10
from zipbatch.datasets.gtsrb import find_gtsrb
from zipbatch.datasets.image_folder import find_image_folder
from zipbatch.datasets.plain_pickle import load_plain
from zipbatch.endpoints import http
from zipbatch.errors import DataError, ZipbatchError
from zipbatch.pipeline.config import PipelineConfig
from zipbatch.report.versions import versions_table
from zipbatch.shards import Limits, read_shard
from zipbatch.stages.convert.import_files import match_by_map
from zipbatch.stages.purify.identity import describe
from zipbatch.stages.purify.worker import PurifySetup, PurifyTask, PurifyWorker
from zipbatch.store import RememberedInputs, Store, verify
from zipbatch.store.attestation import read_envelopes, read_statement
from zipbatch.store.records import QUARANTINE
from zipbatch.store.removals import Removals
from zipbatch.store.signatures import check_signatures, sign_version
from zipbatch.store.signing import Signer, parse_verifier
from zipbatch.victims import Normalisation

OURS: tuple[type[Exception], ...] = (ZipbatchError,)
Ask = Callable[[bytes], object]
"""Gives a parser its input; made once for each target, in the folder where it may keep it."""


@dataclass(frozen=True)
class Target:
    """What is fuzzed.

    Attributes:
        seeds: folder -> sound inputs, of the real writers.
        ask: folder -> how the parser is asked, and what must be there for it.
        codecs: structures within which it is damaged too.
        own_errors: what the parser may raise beside our errors, by its contract.
        cost: how many times the effort of most; the quick test takes so many fewer inputs.
    """

    seeds: Callable[[Path], list[bytes]]
    ask: Callable[[Path], Ask]
    codecs: tuple[Codec, ...] = ()
    own_errors: tuple[type[Exception], ...] = ()
    cost: int = 1


def _file(name: str, read: Callable[[Path], object]) -> Callable[[Path], Ask]:
    """The parser of a file: it lies in the folder as ``name`` and is read from there."""

    def made(folder: Path) -> Ask:
        def ask(data: bytes) -> object:
            (folder / name).write_bytes(data)
            return read(folder / name)

        return ask

    return made


# ---- shards and images


def _shards(folder: Path) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    ours = write_shard(folder / "a.tar", [sample(f"k/{i}", i, seed=i) for i in range(3)])
    meta = json.dumps({"label": 1, "original_label": 2, "poisoned": True}).encode()
    png = images.encode_png(picture(1))
    plain = write_tar(folder / "b.tar", [("./é.png", png), ("./é.json", meta), ("./ü.png", png), ("./ü.txt", b"x")])
    with wds.TarWriter(str(folder / "c.tar")) as writer:
        writer.write({"__key__": "n" * 150, "png": picture(2), "cls": 1, "json": {"label": 1}})
    for name, kind in (("d.tar", tarfile.GNU_FORMAT), ("e.tar", tarfile.PAX_FORMAT)):
        with tarfile.open(folder / name, "w", format=kind) as tar:
            info = tarfile.TarInfo("ä" * 120 + ".png")
            info.size, info.mtime = len(png), 1.5
            tar.addfile(info, io.BytesIO(png))
            link = tarfile.TarInfo("l.png")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(link) if kind == tarfile.GNU_FORMAT else None
    made = [(folder / f"{letter}.tar").read_bytes() for letter in "abcde"]
    return [*made, gzip.compress(ours.read_bytes()), gzip.compress(plain.read_bytes())]


def _read_shard(path: Path) -> None:
    for each in read_shard(path, limits=Limits(max_member_bytes=1_000_000)):
        each.original_label()
        each.stamped()
        each.image(max_pixels=100_000)


def _purify(folder: Path) -> Ask:
    """Through a worker with quarantine: nothing lost, nothing invented, nothing half-published."""
    store = Store(folder / "pur")
    store.prepare()
    setup = PurifySetup(
        spec=purifier_spec(method="blur", overrides={"transforms": ["blur:2"]}),
        store=store.root,
        batch_size=4,
        quarantine=True,
    )
    worker = PurifyWorker(setup, WorkerContext(device="cpu", compute_threads=1, heartbeat=lambda: None, label={}))

    def ask(data: bytes) -> None:
        path = folder / "in.tar"
        path.write_bytes(data)
        try:
            record = worker(PurifyTask("in.tar", path, None)).record
            assert record.samples_in == record.samples_out + len(record.quarantined)
            assert record.samples_out == sum(1 for _ in read_shard(store.objects.path(record.output_sha256)))
        except DataError:
            assert not list(store.root.rglob("*.tar"))
            raise
        finally:
            assert not list(store.root.rglob(".tmp-*"))
            assert verify(store).faults == ()
            for file in [*store.root.rglob("*.tar"), *store.root.rglob("*.json")]:
                file.unlink()

    return ask


def _encoded(kind: str, **options: object) -> Callable[[Path], list[bytes]]:
    def seeds(_: Path) -> list[bytes]:
        made = []
        smooth = Image.fromarray(picture(3))
        modes = [smooth, smooth.convert("L"), smooth.convert("P"), smooth.convert("RGBA"), smooth.convert("1")]
        for image in modes[:2] if kind in {"JPEG", "PPM"} else [m for m in modes if kind == "PNG" or m.mode[0] == "R"]:
            for extra in ({}, options):
                buffer = io.BytesIO()
                image.convert("RGB" if kind == "PPM" else image.mode).save(buffer, kind, **extra)
                made.append(buffer.getvalue())
        return made

    return seeds


def _decode(extension: str) -> Callable[[Path], Ask]:
    def ask(data: bytes) -> None:
        pixels = images.decode(data, extension, max_pixels=100_000)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        assert pixels.size

    return lambda _: ask


_EXIF = Image.Exif()
_EXIF[0x0112] = 6
_ICC = b"\0" * 128 + struct.pack(">I", 0)


# ---- datasets and stores


def _staged(folder: Path) -> Path:
    source = write_source(folder / "source", counts={"test": 4})
    out = folder / "staged"
    assert zipbatch("poison", source, "--attack", "badnets", "--split", "test", "--out", out).code == 0
    return out


def _of_staged(name: str) -> tuple[Callable[[Path], list[bytes]], Callable[[Path], Ask]]:
    def seeds(folder: Path) -> list[bytes]:
        folder.mkdir(exist_ok=True)
        return [(_staged(folder) / name).read_bytes()]

    def made(folder: Path) -> Ask:
        place = _staged(folder)

        def ask(data: bytes) -> None:
            (place / name).write_bytes(data)
            for shard in open_dataset([str(place)]).shards:
                assert shard.path.parent == place

        return ask

    return seeds, made


def _store(folder: Path) -> Path:
    source = write_source(folder / "source", counts={"test": 4})
    write_tar(source / "test-000009.tar", [("x.png", b"x"), ("y.png", images.encode_png(picture(1)))])
    command = ("purify", source, "--purifier", "blur", "--store", folder / "pur", "--name", "in", "--quarantine")
    assert zipbatch(*command).code == 0
    Removals(Store(folder / "pur")).note(["0" * 64, f"{'1' * 64}{QUARANTINE}"])
    return folder / "pur"


def _signed(folder: Path) -> Path:
    store = Store(_store(folder))
    sign_version(store, store.versions.read("in"), Signer(Ed25519PrivateKey.from_private_bytes(bytes(32))))
    assert isinstance(store.root, Path)
    return store.root


def _statements(folder: Path) -> list[bytes]:
    folder.mkdir(exist_ok=True)
    return [
        e.payload for file in _signed(folder).glob("versions/in/*.sig.jsonl") for e in read_envelopes(file.read_bytes())
    ]


def _said(data: bytes) -> object:
    return parse_verifier(read_statement(data).public_key.encode())


def _check_signatures(store: Store, file: Path) -> object:
    return check_signatures(store, "in", file.name.partition(".")[0])


def _of_store(
    pattern: str, read: Callable[[Store, Path], object], *, make: Callable[[Path], Path] = _store
) -> tuple[Callable[[Path], list[bytes]], Callable[[Path], Ask]]:
    def seeds(folder: Path) -> list[bytes]:
        folder.mkdir(exist_ok=True)
        return [file.read_bytes() for file in sorted(make(folder).glob(pattern))]

    def made(folder: Path) -> Ask:
        root = make(folder)
        file, store = sorted(root.glob(pattern))[0], Store(root)

        def ask(data: bytes) -> object:
            file.write_bytes(data)
            return read(store, file)

        return ask

    return seeds, made


def _read_version(store: Store, _: Path) -> None:
    versions = store.versions
    listed = versions.versions("in")
    versions_table({"in": (listed, versions.tags.of("in"))})
    found = versions.read("in")
    describe(found.header.purifier)
    for row in found.rows:
        for name in row.objects:
            store.objects.has(name)


# ---- settings


def _yaml(_: Path) -> list[bytes]:
    root = Path(__file__).parents[2]
    made = [file.read_bytes() for file in sorted((root / "configs").rglob("*.yaml"))]
    aliases = b"a: &a {k: [1, 2.5, null, true]}\nb: {<<: *a, d: 2001-01-01}\nc: [*a, 'x', \"y\", 0x1f, 1:30, .inf]\n"
    return [*made, *(file.read_bytes() for file in sorted((root / "pipelines").glob("*.yaml"))), aliases]


def _settings(path: Path) -> None:
    for read in (
        lambda: load_config(path, VictimConfig),
        lambda: load_config(path, PipelineConfig),
        lambda: purifier_spec(preset=str(path)),
        lambda: parse_scalar(path.read_text("latin-1")[:2000]),
    ):
        with contextlib.suppress(*OURS):
            read()


# ---- checkpoints


def _saved(value: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}
RECORD = {"epoch": 3, "model": STATE, "np": [np.arange(4), np.float32(1.5)], "names": ["x", None, True]}


def _torch_seeds(_: Path) -> list[bytes]:
    return [_saved(STATE), _saved(RECORD), _saved(STATE, _use_new_zipfile_serialization=False)]


def _record_seeds(_: Path) -> list[bytes]:
    return [_saved(attack_result())]


def _read_record(path: Path) -> None:
    record = read_attack_result(path)
    record.train_marked()
    record.test_images()


def _prior_config(name: str, key: str) -> tuple[Callable[[Path], list[bytes]], Callable[[Path], Ask]]:
    def made(folder: Path) -> Ask:
        write_prior(folder / "prior")
        return _file(f"prior/{key}/{name}", lambda _: load_prior(open_prior(folder / "prior")))(folder)

    return lambda folder: [(write_prior(folder / "prior") / key / name).read_bytes()], made


def _victim(folder: Path) -> Ask:
    write_victim(folder / "victim")
    return _file("victim/config.json", lambda _: load_victim(open_victim(folder / "victim")))(folder)


def _onnx_seeds(_: Path) -> list[bytes]:
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["scores"]),
    ]
    head = numpy_helper.from_array(np.ones((3, 4), np.float32), "head")
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("n", 3, 8, 8))]
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ("n", 4))]
    graph = helper.make_graph(nodes, "net", inputs, outputs, [head])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return [made.SerializeToString()]


def _read_onnx(path: Path) -> None:
    plain = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    OnnxClassifier(path, plain).classify(np.zeros((2, 8, 8, 3), np.uint8))


# ---- sources


def _gtsrb(folder: Path) -> Ask:
    root = write_gtsrb(folder)

    def ask(data: bytes) -> None:
        (folder / "GT-final_test.csv").write_bytes(data)
        found = find_gtsrb(str(root))
        assert found is not None
        for image in found.images("test"):
            assert image.origin.startswith("Final_Test/")

    return ask


def _folder(folder: Path) -> Ask:
    """Names of folders and files are the input: a line each."""

    def ask(data: bytes) -> None:
        root = folder / "images"
        for item in sorted(root.rglob("*"), reverse=True):
            item.rmdir() if item.is_dir() else item.unlink()
        for line in data.split(b"\n")[:6]:
            parts = [part for part in line.replace(b"\0", b"").split(b"/") if part not in {b"", b".", b".."}]
            name = "/".join(part.decode("utf-8", "surrogateescape") for part in parts) or "x.png"
            with contextlib.suppress(OSError):
                (root / "test" / name).parent.mkdir(parents=True, exist_ok=True)
                (root / "test" / name).write_bytes(PICTURE)
        found = find_image_folder(str(root))
        for image in found.images("test") if found else ():
            image.pixels()

    return ask


PICTURE = images.encode_png(picture(0, 4))


def _map(folder: Path) -> Ask:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(PICTURE)
    keys = {"test": {"x": None, "y": None}}
    return _file("map.csv", lambda path: match_by_map(folder, path, keys))(folder)


def _answer(_: Path) -> Ask:
    """The bytes that a server answers with, head and all."""
    http.PAUSE_S = 0.0
    server = socket.create_server(("127.0.0.1", 0))
    said = [b""]

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                connection.settimeout(1)
                got = b""
                while b"\r\n\r\n" not in got or len(got.partition(b"\r\n\r\n")[2]) < 100:
                    got += connection.recv(65536) or b"\r\n\r\n" + bytes(100)
                connection.sendall(said[0])

    threading.Thread(target=serve, daemon=True).start()
    victim = http.HttpVictim(f"http://127.0.0.1:{server.getsockname()[1]}/", timeout_s=0.5)

    def ask(data: bytes) -> None:
        said[0] = data
        victim.classify(np.zeros((2, 4, 4, 3), np.uint8))

    return ask


def _answers(_: Path) -> list[bytes]:
    buffer = io.BytesIO()
    np.save(buffer, np.ones((2, 3), np.float32))
    bodies = [buffer.getvalue(), b"[[1, 2.5, -3e2], [4, 5, 6]]"]
    heads = ["HTTP/1.1 200 OK\r\nContent-Type: x\r\nContent-Length: %d\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"]
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[[1],\r\n4\r\n[2]]\r\n0\r\n\r\n"
    whole = [(head % len(body) if "%" in head else head).encode() + body for head in heads for body in bodies]
    return [*whole, chunked]


def _arrays(_: Path) -> list[bytes]:
    seeds = []
    for array in (np.ones((4, 4, 3), np.uint8), np.ones((1, 4, 4, 1), np.float32), np.asfortranarray(np.eye(4))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        seeds.append(buffer.getvalue())
    return seeds


def _added(data: bytes) -> None:
    attack = LF()
    stamp(attack, np.zeros((1, 4, 4, 3), np.uint8), attack.trigger_from_array(from_npy(data), 4))


TARGETS: dict[str, Target] = {
    "shard": Target(_shards, _file("x.tar", _read_shard), (TAR, TAR_GZ)),
    "purify": Target(_shards, _purify, (TAR, TAR_GZ), cost=4),
    "png": Target(_encoded("PNG", exif=_EXIF, icc_profile=_ICC), _decode("png"), (PNG,), (ValueError,)),
    "jpg": Target(_encoded("JPEG", exif=_EXIF, progressive=True), _decode("jpg"), (JPEG,), (ValueError,)),
    "webp": Target(_encoded("WEBP", lossless=True, exif=_EXIF), _decode("webp"), (WEBP,), (ValueError,)),
    "ppm": Target(_encoded("PPM"), _decode("ppm"), (), (ValueError,)),
    "manifest": Target(*_of_staged("manifest.json"), (JSON,)),
    "shard-list": Target(*_of_staged("shards.jsonl"), (LINES,)),
    "classes": Target(lambda _: [b"ant\nbee\n"], _file("classes.txt", read_classes), (LINES,)),
    "task": Target(*_of_store("tasks/??/*.json", lambda s, f: s.tasks.read(f.stem)), (JSON,)),
    "version-header": Target(*_of_store("versions/in/*.json", _read_version), (JSON,)),
    "version-list": Target(*_of_store("versions/in/*.gz", _read_version), (LINES_GZ,)),
    "tag": Target(*_of_store("tags/in/latest", lambda s, _: s.versions.read("in"))),
    "note": Target(*_of_store("removals/*.gz", lambda s, _: Removals(s).notes()), (JSON_GZ,)),
    "signatures": Target(*_of_store("versions/in/*.sig.jsonl", _check_signatures, make=_signed), (LINES,)),
    "statement": Target(_statements, lambda _: _said, (JSON,), (ValueError,)),
    "inputs": Target(*_of_store("inputs/*.gz", lambda s, f: RememberedInputs(s, "in").digest(f)), (LINES_GZ,)),
    "yaml": Target(_yaml, _file("x.yaml", _settings), (LINES,), cost=4),
    "torch": Target(_torch_seeds, _file("x.pt", read_tensors), (ZIP,)),
    "attack-result": Target(_record_seeds, _file("x.pt", _read_record), (ZIP,), cost=2),
    "safetensors": Target(lambda _: [save(STATE)], _file("x.safetensors", read_tensors), (SAFETENSORS,)),
    "unet-config": Target(*_prior_config("config.json", "unet"), (JSON,), cost=8),
    "schedule": Target(*_prior_config("scheduler_config.json", "scheduler"), (JSON,), cost=8),
    "victim-config": Target(
        lambda folder: [(write_victim(folder / "victim") / "config.json").read_bytes()], _victim, (JSON,), cost=8
    ),
    "onnx": Target(_onnx_seeds, _file("x.onnx", _read_onnx), cost=2),
    "cifar10-tar": Target(
        lambda folder: [gzip.decompress(write_cifar10_tar(folder / "c.tar.gz", count=1).read_bytes())],
        _file("x.tar", lambda path: [list(a.images("train")) for a in [find_cifar10(str(path))] if a]),
        (TAR,),
        cost=2,
    ),
    "cifar10-pickle": Target(lambda _: list(cifar10_files(2).values()), lambda _: load_plain, (), (ValueError,)),
    "gtsrb-table": Target(
        lambda folder: [(write_gtsrb(folder).parent / "GT-final_test.csv").read_bytes()],
        _gtsrb,
        (LINES,),
    ),
    "image-folder": Target(lambda _: ["ant/a.png\nant/ä.png\nbee/x/b.png\nbee/c.JPG\n".encode()], _folder, (LINES,)),
    "map": Target(
        lambda _: [b"path,key\na.png,x\nb.png,y\n", b"path,key,split\na.png,x,test\nb.png,y,test\n"], _map, (LINES,)
    ),
    "http-answer": Target(_answers, _answer, (), cost=2),
    "trigger-array": Target(_arrays, lambda _: _added, (), (ValueError,)),
}
