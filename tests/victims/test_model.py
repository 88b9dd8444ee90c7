"""A victim normalises, swaps channels where it must, and is built by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from zipbatch.victims import Victim, build_victim


class ChannelMeans(nn.Module):
    """Scores are the means of the channels it is shown."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


def flat_image(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor([red, green, blue]).view(1, 3, 1, 1).expand(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("bgr", "expected"), [(False, [[1.0, -2.0, 6.0]]), (True, [[6.0, -2.0, 1.0]])], ids=["rgb", "bgr"]
)
def test_normalisation_is_inside(bgr: bool, expected: list[list[float]]):
    """(0.75 - 0.5) / 0.25, (0 - 0.25) / 0.125, (1 - 0.25) / 0.125, in the network's order of channels."""
    victim = Victim(ChannelMeans(), mean=(0.5, 0.25, 0.25), std=(0.25, 0.125, 0.125), bgr=bgr)
    assert victim(flat_image(0.75, 0.0, 1.0)).tolist() == expected


def test_without_normalisation_pixels_go_through():
    assert Victim(ChannelMeans())(flat_image(0.25, 0.5, 1.0)).tolist() == [[0.25, 0.5, 1.0]]


def test_argument_is_not_modified():
    unit = torch.rand(2, 3, 4, 4)
    before = unit.clone()
    Victim(ChannelMeans(), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25), bgr=True)(unit)
    assert torch.equal(unit, before)


def test_constants_are_no_weights():
    victim = build_victim("resnet20", num_classes=3, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    assert all(name.startswith("network.") for name in victim.state_dict())
    assert victim.to(torch.float64).get_buffer("mean").dtype == torch.float64  # but they follow the module


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.5,), (1.0, 1.0, 1.0)),
        ((0.0, 0.0, 0.0), (1.0, 1.0)),
        ((0.0,) * 3, (1.0, 0.0, 1.0)),
        ((0.0,) * 3, (-1.0,) * 3),
    ],
)
def test_wrong_constants(mean: tuple[float, ...], std: tuple[float, ...]):
    with pytest.raises(ValueError, match="three values, std above 0"):
        Victim(ChannelMeans(), mean=mean, std=std)


def test_torchvision_by_name():
    victim = build_victim("torchvision:squeezenet1_1", num_classes=5).eval()
    with torch.no_grad():
        assert victim(torch.rand(2, 3, 64, 64)).shape == (2, 5)


def test_torchvision_with_several_outputs_gives_scores():
    with torch.device("meta"):
        victim = build_victim("torchvision:googlenet", num_classes=5).train()
        assert victim(torch.empty(2, 3, 64, 64)).shape == (2, 5)


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (
            "resnet35",
            "unknown architecture 'resnet35'; known: resnet20, resnet18, resnet34, .*, torchvision:<name>, timm:<name>",
        ),
        ("", "unknown architecture ''"),
        ("torchvision:resnet35", "torchvision has no classifier named 'resnet35'"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier named 'fcn_resnet50'"),
        ("torchvision:os.system", "torchvision has no classifier named 'os.system'"),
    ],
)
def test_unknown_architectures(arch: str, message: str):
    with pytest.raises(ValueError, match=message):
        build_victim(arch, num_classes=3)
