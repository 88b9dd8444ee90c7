"""Parameters are named as those of the published victims, so that their weights fit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.foreign import weights
from zipbatch.victims import CIFAR_ARCHITECTURES, build_victim

NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def published_names(depths: list[int]) -> set[str]:
    """Names of a CIFAR ResNet of basic blocks: conv1, bn1, layer{1-4}.{i}.{...}, linear."""
    names = {"conv1.weight", "linear.weight", "linear.bias", *(f"bn1.{name}" for name in NORM)}
    for layer, depth in enumerate(depths, start=1):
        for i in range(depth):
            block = f"layer{layer}.{i}"
            names |= {f"{block}.conv{n}.weight" for n in (1, 2)}
            names |= {f"{block}.bn{n}.{name}" for n in (1, 2) for name in NORM}
            if i == 0 and layer > 1:
                names |= {f"{block}.shortcut.0.weight", *(f"{block}.shortcut.1.{name}" for name in NORM)}
    return names


@pytest.mark.parametrize(
    ("arch", "depths", "tensors"),
    [("resnet34", [3, 4, 6, 3], 218), ("resnet18", [2, 2, 2, 2], 122), ("resnet20", [3, 3, 3], None)],
)
def test_names(arch: str, depths: list[int], tensors: int | None):
    with torch.device("meta"):
        state = build_victim(arch, num_classes=20).network.state_dict()
    assert set(state) == published_names(depths)
    assert tensors is None or len(state) == tensors


def test_shapes_of_resnet34():
    """21.3 M values with a head of 20 classes."""
    with torch.device("meta"):
        state = build_victim("resnet34", num_classes=20).network.state_dict()
    assert state["conv1.weight"].shape == (64, 3, 3, 3)
    assert state["linear.weight"].shape == (20, 512)
    assert state["layer2.0.shortcut.0.weight"].shape == (128, 64, 1, 1)
    assert state["layer4.2.conv2.weight"].shape == (512, 512, 3, 3)
    assert sum(tensor.numel() for tensor in state.values()) == pytest.approx(21.3e6, rel=0.005)


@pytest.mark.parametrize("size", [8, 20])
@pytest.mark.parametrize("arch", sorted(arch for arch in CIFAR_ARCHITECTURES if "resnet" in arch))
def test_any_image_size(arch: str, size: int):
    """No max-pool and a global mean: three or two halvings, whatever the size."""
    victim, seen = build_victim(arch, num_classes=7).eval(), []
    stages = [name for name, _ in victim.network.named_children() if name.startswith("layer")]
    last = victim.network.get_submodule(stages[-1])
    last.register_forward_hook(lambda module, inputs, output: seen.append(output.shape))
    with torch.no_grad():
        assert victim(torch.rand(1, 3, size, size)).shape == (1, 7)
    halved = size
    for _ in stages[1:]:
        halved = -(-halved // 2)
    assert seen[0][2:] == (halved, halved)


@pytest.mark.parametrize(("arch", "blocks"), [("resnet50", [3, 4, 6, 3]), ("resnet101", [3, 4, 23, 3])])
def test_bottlenecks_are_those_of_torchvision_behind_the_small_stem(arch: str, blocks: list[int]):
    """Held against torchvision's blocks, which differ in the names of their shortcuts alone."""
    from torchvision.models.resnet import Bottleneck, ResNet

    theirs = ResNet(Bottleneck, blocks, num_classes=7).eval()
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.Identity()
    ours = build_victim(arch, num_classes=7).network.eval()
    state = {key.replace("shortcut", "downsample").replace("linear", "fc"): v for key, v in weights(arch, 7).items()}
    theirs.load_state_dict(state)
    ours.load_state_dict(weights(arch, 7))
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected = theirs(x)
        assert float((ours(x) - expected).abs().max() / expected.abs().max()) < 1e-4
