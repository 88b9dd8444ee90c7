"""Foreign victims through the command: the same answers as in their own tool, and nothing assumed in silence."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from tests.foreign import SIZE, Evil, attack_result, parallel, weights, write_record
from tests.making import Ran, files_below, picture, zipbatch
from zipbatch.atomic import sha256_file
from zipbatch.checkpoints import open_victim
from zipbatch.checkpoints.backdoorbench import RESIZED_INSIDE
from zipbatch.checkpoints.onnx import OnnxClassifier
from zipbatch.errors import UsageError
from zipbatch.victims import NORMALISATIONS, Normalisation, build_victim, top1

IMAGES = np.stack([picture(seed, SIZE) for seed in range(8)])
UNIT = torch.from_numpy(IMAGES).permute(0, 3, 1, 2).contiguous().float() / 255


def imported(file: Path, out: Path, *options: object) -> dict[str, Any]:
    ran = zipbatch("import", "victim", file, "--out", out, *options, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def refused(ran: Ran, *parts: str) -> None:
    assert (ran.code, ran.out) == (2, ""), ran.err
    for part in parts:
        assert part in ran.err


def scores(folder: Path) -> np.ndarray:
    return open_victim(folder).load(torch.device("cpu")).classify(IMAGES)


def wanted(arch: str, state: dict[str, torch.Tensor], x: torch.Tensor, classes: int) -> np.ndarray:
    """What the network itself says, strictly loaded, of pixels prepared by hand."""
    network = build_victim(arch, num_classes=classes).network.eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        return network(x).numpy()


@pytest.mark.parametrize(
    ("arch", "wrap"),
    [
        ("resnet18", parallel),
        ("resnet20", dict),
        ("resnet20", lambda state: {"state_dict": parallel(state), "epoch": 200}),
    ],
    ids=["ZIP's DataParallel", "one GPU", "nested"],
)
def test_a_checkpoint_of_zip(tmp_path: Path, staged: Path, arch: str, wrap: Callable[[Any], Any]):
    """A 20-way head for data of few classes: kept, and evaluated."""
    state = weights(arch, 20)
    torch.save(wrap(state), tmp_path / "ckpt.pth")
    found = imported(tmp_path / "ckpt.pth", tmp_path / "v", "--image-size", SIZE)
    config = found["config"]
    assert (config["arch"], config["num_classes"], config["image_size"]) == (arch, 20, SIZE)
    assert set(found["assumed"]) == {"normalisation", "channels"}
    assert set(files_below(tmp_path / "v")) == {"config.json", "manifest.json", "model.safetensors"}
    assert np.array_equal(scores(tmp_path / "v"), wanted(arch, state, UNIT, 20))
    origin = json.loads((tmp_path / "v" / "manifest.json").read_text())["imported_from"]
    assert (origin["file"], origin["sha256"]) == ("ckpt.pth", sha256_file(tmp_path / "ckpt.pth"))
    ran = zipbatch("evaluate", tmp_path / "v", "--data", staged, "--json")
    assert ran.code == 0, ran.err
    assert ran.json["rows"][0]["n_ca"] == 12


def test_resnet34_by_its_names(tmp_path: Path):
    torch.save(parallel(weights("resnet34", 20)), tmp_path / "ckpt.pth")
    assert imported(tmp_path / "ckpt.pth", tmp_path / "v", "--image-size", 16)["config"]["arch"] == "resnet34"


def test_bgr_and_normalisation_are_what_they_say(tmp_path: Path):
    """A victim of cv2.imread: blue first; each mean and std belongs to its colour."""
    state = weights("resnet20", 5)
    save_file(state, tmp_path / "net.safetensors")
    options = ("--image-size", SIZE, "--channel-order", "bgr", "--mean", "0.1,0.2,0.3", "--std", "0.5 0.6 0.7")
    found = imported(tmp_path / "net.safetensors", tmp_path / "v", *options)
    assert found["assumed"] == {}
    prepared = (UNIT - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    assert np.allclose(scores(tmp_path / "v"), wanted("resnet20", state, prepared[:, [2, 1, 0]], 5), atol=1e-5)


def test_names_of_normalisations(tmp_path: Path):
    torch.save(weights("resnet20", 5), tmp_path / "net.pth")
    config = imported(tmp_path / "net.pth", tmp_path / "v", "--image-size", 16, "--mean", "cifar10")["config"]
    assert (config["mean"], config["std"]) == ([0.4914, 0.4822, 0.4465], [0.247, 0.243, 0.261])


def test_a_record_of_backdoorbench(tmp_path: Path):
    """Model, size and normalisation are in the record; the classes of CIFAR-10 have names."""
    content = attack_result(arch="preactresnet18", classes=10)
    record = write_record(tmp_path / "record" / "badnet_0_1", content, old_numpy=True)
    found = imported(record, tmp_path / "v")
    assert found["assumed"] == {}
    assert found["format"] == "BackdoorBench record"
    assert (found["config"]["arch"], found["config"]["image_size"]) == ("preactresnet18", SIZE)
    assert found["config"]["classes"][:2] == ["airplane", "automobile"]
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.4914, 0.4822, 0.4465), (0.247, 0.243, 0.261)))
    assert np.allclose(
        scores(tmp_path / "v"), wanted("preactresnet18", content["model"], (UNIT - mean) / std, 10), rtol=1e-4
    )


def test_a_record_of_data_that_is_not_known_asks_for_its_normalisation(tmp_path: Path):
    content = attack_result(arch="torchvision:squeezenet1_1", clean_data="svhn", img_size=np.array([32, 32, 3]))
    record = write_record(tmp_path / "r", content)
    refused(zipbatch("import", "victim", record, "--out", tmp_path / "v"), "how its pixels are normalised (--mean")
    assert imported(record, tmp_path / "v", "--mean", "half")["config"]["arch"] == "torchvision:squeezenet1_1"


def test_a_record_whose_model_resizes_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """BackdoorBench's ViT is Sequential(Resize(224), net): its tensors' names begin with ``1.``. Here a smaller net."""
    assert RESIZED_INSIDE["vit_b_16"] == 224
    monkeypatch.setitem(RESIZED_INSIDE, "squeezenet1_1", 64)
    state = weights("torchvision:squeezenet1_1", 2)
    content = attack_result(classes=2, rows=[(1, 1)], model={f"1.{key}": value for key, value in state.items()})
    record = write_record(tmp_path / "r", content | {"model_name": "squeezenet1_1", "clean_data": "gtsrb"})
    config = imported(record, tmp_path / "v")["config"]
    assert (config["image_size"], config["network_size"]) == (SIZE, 64)
    resized = F.interpolate(UNIT[:1], size=(64, 64), mode="bilinear", antialias=True)
    got = open_victim(tmp_path / "v").load(torch.device("cpu")).classify(IMAGES[:1])
    assert np.allclose(got, wanted("torchvision:squeezenet1_1", state, resized, 2), atol=1e-5)


def test_torchvision_by_name(tmp_path: Path):
    """What is usual there is assumed, and told."""
    torch.save(weights("torchvision:squeezenet1_1", 6), tmp_path / "net.pth")
    asked = ("import", "victim", tmp_path / "net.pth", "--arch", "torchvision:squeezenet1_1", "--out", tmp_path / "v")
    ran = zipbatch(*asked)
    assert ran.code == 0, ran.err
    assert ran.out.splitlines() == [
        f"{tmp_path / 'v'}: imported (state dict: torchvision:squeezenet1_1, 6 classes, 224 px)",
        "  assumed: image size 224; --image-size says otherwise",
        "  assumed: normalisation mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225); --mean says otherwise",
        "  assumed: channels RGB; --channel-order says otherwise",
    ]
    before = files_below(tmp_path / "v")
    again = zipbatch(*asked)
    assert "already imported" in again.out
    assert files_below(tmp_path / "v") == before
    refused(zipbatch(*asked, "--image-size", 64), "holds the result of other settings")


def test_timm_is_asked_for_by_the_command_that_installs_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    torch.save(weights("resnet20", 3), tmp_path / "net.pth")
    ran = zipbatch("import", "victim", tmp_path / "net.pth", "--arch", "timm:resnet18", "--out", tmp_path / "v")
    refused(ran, "timm:resnet18 needs timm, which is not installed: pip install timm")


def test_timm_by_name(tmp_path: Path):
    pytest.importorskip("timm")
    torch.save(weights("timm:resnet10t", 6), tmp_path / "net.pth")
    asked = ("import", "victim", tmp_path / "net.pth", "--arch", "timm:resnet10t", "--out", tmp_path / "v")
    refused(zipbatch(*asked), "the size of the images", "how its pixels are normalised")
    refused(zipbatch(*asked[:4], "timm:hf-hub:a/b", *asked[5:]), "no classifier named 'hf-hub:a/b'")
    assert zipbatch(*asked, "--image-size", 64, "--mean", "imagenet").code == 0


def test_files_that_run_code_do_not(tmp_path: Path):
    marker = tmp_path / "marker"
    torch.save({"state_dict": weights("resnet20", 3), "note": Evil(marker)}, tmp_path / "evil.pth")
    torch.save(attack_result() | {"note": Evil(marker)}, tmp_path / "attack_result.pt")
    for file in ("evil.pth", "attack_result.pt"):
        ran = zipbatch("import", "victim", tmp_path / file, "--out", tmp_path / "v", "--image-size", 16)
        refused(ran, file, "refused, and nothing was run")
    assert not marker.exists()
    assert not (tmp_path / "v").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "does not say the size of the images that it was trained on (--image-size PX"),
        (("--image-size", 16, "--num-classes", 10), "--num-classes 10: the file says 5; leave it out"),
        (("--image-size", 16, "--arch", "resnet18"), "does not fit resnet18: 25 missing: "),
        (("--image-size", 16, "--arch", "resnet35"), "unknown architecture 'resnet35'"),
        (("--image-size", 16, "--mean", "0.5,0.5,0.5"), "needs --std; only a NAME (none, half, imagenet"),
        (("--image-size", 16, "--std", "half"), "--std needs --mean"),
        (("--image-size", 16, "--mean", "0.5,0.5", "--std", "half"), "neither three numbers"),
        (("--image-size", 16, "--mean", "a,b,c", "--std", "half"), "neither three numbers"),
        (("--image-size", 16, "--mean", "half", "--std", "1,0,1"), "must be above 0"),
        (("--image-size", 16, "--mean", "half", "--std", "1,nan,1"), "neither three numbers"),
    ],
)
def test_wrong_flags(tmp_path: Path, options: tuple[object, ...], words: str):
    torch.save(weights("resnet20", 5), tmp_path / "net.pth")
    refused(zipbatch("import", "victim", tmp_path / "net.pth", "--out", tmp_path / "v", *options), words)
    assert not (tmp_path / "v").exists()


def test_wrong_files(tmp_path: Path):
    out = ("--out", tmp_path / "v", "--image-size", 16)
    refused(zipbatch("import", "victim", tmp_path / "gone.pth", *out), "gone.pth: no such file")
    refused(zipbatch("import", "victim", tmp_path, *out), "attack_result.pt: no such file")
    (tmp_path / "text.pth").write_text("hello")
    refused(zipbatch("import", "victim", tmp_path / "text.pth", *out), "text.pth")
    nan = weights("resnet20", 3) | {"linear.bias": torch.full((3,), torch.nan)}
    torch.save(nan, tmp_path / "nan.pth")
    refused(zipbatch("import", "victim", tmp_path / "nan.pth", *out), "gave NaN for image 0")
    torch.save(weights("resnet20", 3), tmp_path / "small.pth")
    (tmp_path / "taken").write_text("a file")
    ran = zipbatch("import", "victim", tmp_path / "small.pth", "--image-size", 16, "--out", tmp_path / "taken" / "v")
    refused(ran, "cannot be made")


# ---- differences that change no score


@pytest.mark.parametrize(
    "prefix",
    ["module.", "_orig_mod.", "model.", "net.", "network.", "backbone.", "encoder.", "1.", "module.model.", "a_b.0."],
)
@pytest.mark.parametrize("arch", ["resnet20", "vgg11_bn"])
def test_whatever_was_wrapped_around_a_network_is_taken_off(tmp_path: Path, prefix: str, arch: str):
    state = weights(arch, 4)
    torch.save({f"{prefix}{key}": value for key, value in state.items()}, tmp_path / "net.pth")
    found = imported(tmp_path / "net.pth", tmp_path / "v", "--image-size", 32)
    assert found["config"]["arch"] == arch
    stripped = json.loads((tmp_path / "v" / "manifest.json").read_text())["imported_from"]["prefixes_stripped"]
    assert "".join(stripped) == prefix
    assert ("in_front" in found["assumed"]) == (prefix == "1.")
    large = np.stack([picture(seed, 32) for seed in range(2)])
    unit = torch.from_numpy(large).permute(0, 3, 1, 2).contiguous().float() / 255
    got = open_victim(tmp_path / "v").load(torch.device("cpu")).classify(large)
    assert np.array_equal(got, wanted(arch, state, unit, 4))


@pytest.mark.parametrize("arch", ["resnet20", "preactresnet18", "vgg13_bn", "torchvision:resnet18"])
@pytest.mark.parametrize("some", [False, True])
def test_counters_of_batches_may_be_missing(tmp_path: Path, arch: str, some: bool):
    state = weights(arch, 4)
    counters = [key for key in state if key.endswith("num_batches_tracked")]
    assert counters
    old = {key: value for key, value in state.items() if key not in counters[: 1 if some else None]}
    torch.save(old, tmp_path / "old.pth")
    named = ("--arch", arch) if arch.startswith("torchvision") else ()
    imported(tmp_path / "old.pth", tmp_path / "v", "--image-size", 32, "--mean", "none", *named)
    unit = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    pixels = (unit * 255).round().to(torch.uint8)
    got = open_victim(tmp_path / "v").load(torch.device("cpu")).classify(pixels.permute(0, 2, 3, 1).numpy())
    assert np.allclose(got, wanted(arch, state, pixels.float() / 255, 4), atol=1e-5)


@pytest.mark.parametrize("kind", ["running_mean", "weight"])
def test_statistics_and_weights_may_not_be_missing(tmp_path: Path, kind: str):
    state = weights("resnet20", 4)
    del state[f"bn1.{kind}"]
    torch.save(state, tmp_path / "net.pth")
    ran = zipbatch("import", "victim", tmp_path / "net.pth", "--out", tmp_path / "v", "--image-size", 16)
    refused(ran, f"1 missing: bn1.{kind}")


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
@pytest.mark.parametrize("record", [False, True])
def test_heads_that_only_training_has_are_left_out(tmp_path: Path, name: str, record: bool):
    from torchvision import models

    torch.manual_seed(0)
    theirs = models.get_model(name, weights=None, num_classes=5, aux_logits=True, init_weights=False).eval()
    state = theirs.state_dict()
    assert any(key.lower().startswith("aux") for key in state)
    if record:
        result = attack_result(classes=5, rows=[(1, 1)], model=state, img_size=(96, 96, 3), clean_data="gtsrb")
        file = write_record(tmp_path / "r", {**result, "model_name": name})
        found = imported(file, tmp_path / "v")
    else:
        torch.save(state, tmp_path / "net.pth")
        options = ("--arch", f"torchvision:{name}", "--mean", "none", "--image-size", 96)
        found = imported(tmp_path / "net.pth", tmp_path / "v", *options)
    assert found["config"]["arch"] == f"torchvision:{name}"
    large = np.stack([picture(seed, 96) for seed in range(2)])
    with torch.inference_mode():
        expected = theirs(torch.from_numpy(large).permute(0, 3, 1, 2).contiguous().float() / 255).numpy()
    assert np.allclose(open_victim(tmp_path / "v").load(torch.device("cpu")).classify(large), expected, atol=1e-4)


def small_vit(side: int, classes: int = 3) -> dict[str, torch.Tensor]:
    """torchvision's ViT-B/32 for images of that side."""
    from torchvision import models

    torch.manual_seed(0)
    return models.vit_b_32(weights=None, num_classes=classes, image_size=side).state_dict()


@pytest.mark.parametrize(
    "options",
    [
        pytest.param((), id="silent", marks=pytest.mark.slow),
        pytest.param(("--image-size", 64), id="same", marks=pytest.mark.slow),
        pytest.param(("--image-size", 32), id="smaller"),
    ],
)
def test_a_vit_of_another_size(tmp_path: Path, options: tuple[object, ...]):
    """Its weights say which; smaller images are resized inside, and told."""
    state = small_vit(64)
    torch.save(state, tmp_path / "vit.pth")
    found = imported(tmp_path / "vit.pth", tmp_path / "v", "--arch", "torchvision:vit_b_32", *options, "--mean", "half")
    side = options[1] if options else 64
    assert (found["config"]["image_size"], found["config"]["network_size"]) == (side, None if side == 64 else 64)
    assert found["assumed"].get("network_size") == (None if side == 64 else 64)
    assert ("image_size" in found["assumed"]) == (not options)
    pixels = np.stack([picture(seed, int(side)) for seed in range(2)])
    x = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous().float() / 255 * 2 - 1
    if side != 64:
        x = F.interpolate(x, size=(64, 64), mode="bilinear", antialias=True)
    network = build_victim("torchvision:vit_b_32", num_classes=3, image_size=64).network.eval()
    network.load_state_dict(state)
    with torch.inference_mode():
        expected = network(x).numpy()
    assert np.allclose(open_victim(tmp_path / "v").load(torch.device("cpu")).classify(pixels), expected, atol=1e-4)


# ---- what a defence of BackdoorBench leaves


@pytest.mark.parametrize(("classes", "dataset", "side"), [(10, "cifar10", 32), (43, "gtsrb", 32), (200, "tiny", 64)])
def test_a_record_of_a_defence(tmp_path: Path, classes: int, dataset: str, side: int):
    """It names its model but not its data: those of so many classes are assumed, and told."""
    state = weights("preactresnet18", classes)
    folder = tmp_path / "record" / "badnet" / "defense" / "ft"
    folder.mkdir(parents=True)
    content = {"model_name": "preactresnet18", "num_classes": classes, "model": parallel(state)}
    torch.save(content, folder / "defense_result.pt")
    found = imported(folder, tmp_path / "v")
    normalisation = NORMALISATIONS[dataset]
    assert (found["format"], found["config"]["arch"]) == ("BackdoorBench defence record", "preactresnet18")
    assert (found["config"]["mean"], found["config"]["image_size"]) == (list(normalisation.mean), side)
    assert set(found["assumed"]) == {"normalisation", "image_size"}
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalisation.mean, normalisation.std))
    expected = wanted("preactresnet18", state, (UNIT - mean) / std, classes)
    assert np.allclose(scores(tmp_path / "v"), expected, rtol=1e-4, atol=1e-5)


def test_a_record_of_a_defence_on_other_data_asks(tmp_path: Path):
    content = {"model_name": "preactresnet18", "num_classes": 7, "model": weights("preactresnet18", 7)}
    torch.save(content, tmp_path / "defense_result.pt")
    asked = ("import", "victim", tmp_path / "defense_result.pt", "--out", tmp_path / "v")
    refused(zipbatch(*asked), "does not say the size of the images", "how its pixels are normalised")
    assert zipbatch(*asked, "--image-size", 32, "--mean", "cifar10").code == 0


# ---- safetensors and ONNX under other names


def test_a_safetensors_file_named_pth(tmp_path: Path):
    state = weights("resnet20", 5)
    save_file(state, tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path / "v", "--image-size", SIZE)
    assert np.array_equal(scores(tmp_path / "v"), wanted("resnet20", state, UNIT, 5))


# ---- ONNX


@pytest.fixture
def onnx_file(tmp_path: Path) -> Callable[..., Path]:
    """A linear classifier as a graph: scores are the channels' means, weighed."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, helper, numpy_helper

    def write(name: str = "net.onnx", *, shape: tuple[Any, ...] = ("n", 3, SIZE, SIZE), pooled: bool = True) -> Path:
        head = numpy_helper.from_array(WEIGHTS, "head")
        nodes = [
            helper.make_node("GlobalAveragePool", ["x"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "head"], ["scores"]),
        ]
        graph = helper.make_graph(
            nodes if pooled else [helper.make_node("Identity", ["x"], ["scores"])],
            "net",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("scores", TensorProto.FLOAT, (shape[0], 4) if pooled else None)],
            [head],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


WEIGHTS = np.random.default_rng(2).normal(size=(3, 4)).astype(np.float32)


def test_an_onnx_model_named_pth(tmp_path: Path, onnx_file: Callable[..., Path]):
    found = imported(onnx_file("net.pth"), tmp_path / "v", "--mean", "none")
    assert (found["format"], found["config"]["arch"]) == ("ONNX model", "onnx")


@pytest.mark.parametrize("batch", ["n", 1, 3], ids=["any batch", "one by one", "threes"])
def test_an_onnx_model(tmp_path: Path, onnx_file: Callable[..., Path], staged: Path, batch: Any):
    file = onnx_file(shape=(batch, 3, SIZE, SIZE))
    found = imported(file, tmp_path / "v", "--mean", "0.1,0.2,0.3", "--std", "0.5,0.6,0.7", "--channel-order", "bgr")
    assert (found["config"]["arch"], found["config"]["num_classes"], found["config"]["image_size"]) == ("onnx", 4, SIZE)
    assert set(files_below(tmp_path / "v")) == {"config.json", "manifest.json", "model.onnx"}
    assert (tmp_path / "v" / "model.onnx").read_bytes() == file.read_bytes()
    means = (UNIT.numpy().mean(axis=(2, 3)) - [0.1, 0.2, 0.3]) / [0.5, 0.6, 0.7]
    assert np.allclose(scores(tmp_path / "v"), means[:, ::-1] @ WEIGHTS, atol=1e-5)
    rows = zipbatch("evaluate", tmp_path / "v", "--data", staged, "--json").json["rows"]
    assert rows[0]["n_ca"] == 12


def test_an_onnx_model_that_leaves_things_open(tmp_path: Path, onnx_file: Callable[..., Path]):
    file = onnx_file(shape=("n", 3, "h", "w"))
    out = ("--out", tmp_path / "v", "--mean", "none")
    refused(zipbatch("import", "victim", file, *out), "does not say the size of the images")
    assert zipbatch("import", "victim", file, *out, "--num-classes", 4, "--image-size", 20).code == 0
    assert scores(tmp_path / "v").shape == (8, 4)


def test_onnx_models_that_do_not_fit(tmp_path: Path, onnx_file: Callable[..., Path]):
    out = ("--out", tmp_path / "v", "--mean", "none")
    refused(zipbatch("import", "victim", onnx_file(), *out, "--image-size", 32), "--image-size 32: the file says 16")
    for shape in (("n", SIZE, SIZE, 3), ("n", 3, SIZE * SIZE)):
        other = onnx_file("other.onnx", shape=shape, pooled=False)
        refused(zipbatch("import", "victim", other, *out), "must take one float32 input [N, 3, H, W], it takes x:")
    wide = onnx_file("wide.onnx", shape=("n", 3, 16, 32))
    refused(zipbatch("import", "victim", wide, *out), "only square ones")
    (tmp_path / "text.onnx").write_text("hello")
    refused(zipbatch("import", "victim", tmp_path / "text.onnx", *out), "is plain text, not an ONNX model")


def kept_outside(file: Path, name: str, **facts: object) -> Path:
    """The model with its weights in a file ``name`` beside it, after 5 other bytes, as torch exports larger ones."""
    import onnx

    model = onnx.load(file)
    external(model.graph.initializer[0], location=name, **({"offset": 5, "length": WEIGHTS.nbytes} | facts))
    file.write_bytes(model.SerializeToString())
    return file


def external(tensor: Any, **facts: object) -> Any:
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in facts.items():
        if value is not None:
            tensor.external_data.add(key=key, value=str(value))
    return tensor


OUTSIDE = b"other" + WEIGHTS.tobytes()


@pytest.mark.parametrize("length", [WEIGHTS.nbytes, None], ids=["length", "to the end"])
def test_an_onnx_model_with_its_weights_beside_it(
    tmp_path: Path, onnx_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, length: int | None
):
    """They come along into one file: afterwards nothing else is read, wherever the command is run."""
    whole = scores_of(imported(onnx_file("whole.onnx"), tmp_path / "whole", "--mean", "none"))
    file = kept_outside(onnx_file(), "net.onnx.data", length=length)
    beside = tmp_path / "net.onnx.data"
    beside.write_bytes(OUTSIDE)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "net.onnx.data").write_bytes(bytes(len(OUTSIDE)))
    monkeypatch.chdir(elsewhere)
    found = imported(file, tmp_path / "v", "--mean", "none")
    assert set(files_below(tmp_path / "v")) == {"config.json", "manifest.json", "model.onnx"}
    origin = json.loads((tmp_path / "v" / "manifest.json").read_text())["imported_from"]
    assert origin["weights_from"] == {"net.onnx.data": sha256_file(beside)}
    assert np.array_equal(scores_of(found), whole)
    assert imported(file, tmp_path / "v", "--mean", "none")["reused"]
    beside.write_bytes(OUTSIDE[::-1])
    refused(zipbatch("import", "victim", file, "--mean", "none", "--out", tmp_path / "v"), "other settings or data")
    beside.unlink()
    assert np.array_equal(scores_of(found), whole)
    refused(zipbatch("import", "victim", file, "--mean", "none", "--out", tmp_path / "w"), "net.onnx.data", "No such")


def scores_of(found: dict[str, Any]) -> np.ndarray:
    return scores(Path(found["out"]))


@pytest.mark.parametrize(
    ("name", "facts", "said"),
    [
        ("deep/w.bin", {}, "no file right beside it"),
        ("../w.bin", {}, "no file right beside it"),
        ("{here}/w.bin", {}, "no file right beside it"),
        ("", {}, "no file right beside it"),
        ("..", {}, "no file right beside it"),
        ("*/_ORT_MEM_ADDR_/*", {}, "no file right beside it"),
        ("link.bin", {}, "is a link"),
        ("deep", {}, "Is a directory"),
        ("pipe", {}, "no plain file"),
        ("w.bin", {"offset": len(OUTSIDE)}, "which has 53"),
        ("w.bin", {"length": 10**9}, "which has 53"),
        ("w.bin", {"offset": -1}, "whole numbers"),
        ("w.bin", {"length": "9" * 5000}, "whole numbers"),
        ("w.bin", {"length": 4}, "not a model that onnxruntime can read"),
    ],
)
def test_an_onnx_model_reads_no_other_file(
    tmp_path: Path,
    onnx_file: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    facts: dict[str, Any],
    said: str,
):
    """A model says itself where its weights are, and could have those of others read, or whatever lies at hand."""
    (tmp_path / "deep").mkdir()
    for folder in (tmp_path, tmp_path / "deep", tmp_path.parent):
        (folder / "w.bin").write_bytes(OUTSIDE)
    (tmp_path / "link.bin").symlink_to(tmp_path / "w.bin")
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    file = kept_outside(onnx_file(), name.format(here=tmp_path), **facts)
    refused(zipbatch("import", "victim", file, "--mean", "none", "--out", tmp_path / "v"), said)
    assert not (tmp_path / "v").exists()


def holders() -> dict[str, Callable[[Any, Any], None]]:
    """Everywhere that a tensor can stand in a model: (model, tensor) -> puts it there."""
    from onnx import helper

    def graph(tensor: Any) -> Any:
        value = helper.make_tensor_value_info("inner", tensor.data_type, tensor.dims)
        return helper.make_graph([], "inner", [], [value], [tensor])

    def node(**attributes: Any) -> Any:
        return helper.make_node("Any", [], ["unused"], **attributes)

    def sparse(tensor: Any, *, indices: bool) -> Any:
        found = helper.make_sparse_tensor(tensor, tensor, [9, 9])
        (found.values if indices else found.indices).CopyFrom(helper.make_tensor("plain", 1, [1], [1.0]))
        return found

    def function(model: Any, made: Any) -> None:
        model.functions.append(helper.make_function("own", "F", [], [], [made], []))

    return {
        "an initialiser": lambda model, tensor: model.graph.initializer.append(tensor),
        "a constant": lambda model, tensor: model.graph.node.append(node(value=tensor)),
        "constants": lambda model, tensor: model.graph.node.append(node(value=[tensor])),
        "a branch": lambda model, tensor: model.graph.node.append(node(then_branch=graph(tensor))),
        "branches": lambda model, tensor: model.graph.node.append(node(bodies=[graph(tensor)])),
        "a branch of a branch": lambda model, tensor: model.graph.node.append(
            node(b=helper.make_graph([node(b=graph(tensor))], "outer", [], []))
        ),
        "a function": lambda model, tensor: function(model, node(value=tensor)),
        "a function's branch": lambda model, tensor: function(model, node(value=graph(tensor))),
        "sparse values": lambda model, tensor: model.graph.sparse_initializer.append(sparse(tensor, indices=False)),
        "sparse indices": lambda model, tensor: model.graph.sparse_initializer.append(sparse(tensor, indices=True)),
        "a sparse constant": lambda model, tensor: model.graph.node.append(node(v=sparse(tensor, indices=False))),
        "training": lambda model, tensor: model.training_info.add().algorithm.initializer.append(tensor),
    }


HOLDERS = [
    "an initialiser",
    "a constant",
    "constants",
    "a branch",
    "branches",
    "a branch of a branch",
    "a function",
    "a function's branch",
    "sparse values",
    "sparse indices",
    "a sparse constant",
    "training",
]


@pytest.mark.parametrize("where", HOLDERS)
def test_a_victim_that_was_not_imported_keeps_no_weights_outside(
    tmp_path: Path, onnx_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, where: str
):
    import onnx

    assert set(holders()) == set(HOLDERS)
    imported(onnx_file(), tmp_path / "v", "--mean", "none")
    model = onnx.load(onnx_file())
    holders()[where](model, external(onnx.TensorProto(name="t", dims=[3, 4], data_type=1), location="w.bin"))
    (tmp_path / "v" / "model.onnx").write_bytes(model.SerializeToString())
    (tmp_path / "w.bin").write_bytes(WEIGHTS.tobytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"keeps weights in another file \('w.bin'\), .*zipbatch import victim"):
        scores(tmp_path / "v")


def test_an_onnx_model_is_one_to_onnxruntime_too(tmp_path: Path, onnx_file: Callable[..., Path]):
    """Fields that are not looked through are not handed on; nor is a model taken for onnxruntime's own other format."""
    import onnx

    model = onnx.load(onnx_file())
    (tmp_path / "new.onnx").write_bytes(model.SerializeToString() + b"\xfa\x3e\x03new")
    out = ("--mean", "none", "--out", tmp_path / "v")
    refused(zipbatch("import", "victim", tmp_path / "new.onnx", *out), "does not know", "pip install --upgrade onnx")
    model.producer_name = "ORTM"
    content = model.SerializeToString()
    assert content[4:8] == b"ORTM"  # where that format has its mark
    (tmp_path / "odd.onnx").write_bytes(content)
    assert scores_of(imported(tmp_path / "odd.onnx", tmp_path / "v", "--mean", "none")).shape == (8, 4)


@pytest.mark.parametrize("name", [b"x", b"scores"])
def test_onnx_names_that_are_no_text(tmp_path: Path, onnx_file: Callable[..., Path], name: bytes):
    file = onnx_file()
    data = file.read_bytes()
    length = bytes([len(name)])
    file.write_bytes(data.replace(length + name, length + b"\xff" * len(name)))
    with pytest.raises(UsageError, match="UTF-8"):
        OnnxClassifier(file, Normalisation((0.5,) * 3, (0.5,) * 3))


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_onnx_is_asked_for_by_the_command_that_installs_it(
    tmp_path: Path, onnx_file: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, library: str
):
    file = onnx_file()
    monkeypatch.setitem(sys.modules, library, None)
    ran = zipbatch("import", "victim", file, "--out", tmp_path / "v")
    refused(ran, f"needs {library}, which is not installed: pip install 'zipbatch[onnx]'")


def test_top1_of_an_imported_victim_is_that_of_its_scores(tmp_path: Path):
    torch.save(weights("resnet20", 5), tmp_path / "net.pth")
    imported(tmp_path / "net.pth", tmp_path / "v", "--image-size", 16)
    victim = open_victim(tmp_path / "v").load(torch.device("cpu"))
    answers = top1(victim, torch.from_numpy(IMAGES).permute(0, 3, 1, 2))
    assert answers.tolist() == scores(tmp_path / "v").argmax(axis=1).tolist()
