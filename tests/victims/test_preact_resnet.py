"""PreActResNet18 has BackdoorBench's tensors, and computes what the paper's formula says."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from tests.foreign import weights
from zipbatch.victims import build_victim

NORM = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]


def test_names_and_shapes():
    """102 tensors: no bn1 at the top, shortcuts of a convolution alone, ``linear``."""
    with torch.device("meta"):
        state = build_victim("preactresnet18", num_classes=10).network.state_dict()
    names = {"conv1.weight", "linear.weight", "linear.bias"}
    names |= {f"layer{layer}.{i}.conv{n}.weight" for layer in range(1, 5) for i in range(2) for n in (1, 2)}
    names |= {f"layer{layer}.{i}.bn{n}.{k}" for layer in range(1, 5) for i in range(2) for n in (1, 2) for k in NORM}
    names |= {f"layer{layer}.0.shortcut.0.weight" for layer in (2, 3, 4)}
    assert set(state) == names
    assert len(state) == 102
    assert state["layer2.0.bn1.weight"].shape == (64,)
    assert state["layer2.0.bn2.weight"].shape == (128,)
    assert state["layer4.0.shortcut.0.weight"].shape == (512, 256, 1, 1)
    assert state["linear.weight"].shape == (10, 512)


def restated(state: dict[str, Tensor], x: Tensor) -> Tensor:
    """The network from its tensors alone: y = conv2(relu(bn2(conv1(relu(bn1(x)))))) + shortcut."""

    def normalised(x: Tensor, name: str) -> Tensor:
        mean, var, weight, bias = (
            state[f"{name}.{k}"].view(-1, 1, 1) for k in ("running_mean", "running_var", *NORM[:2])
        )
        return F.relu((x - mean) / torch.sqrt(var + 1e-5) * weight + bias)

    x = F.conv2d(x, state["conv1.weight"], padding=1)
    for layer in range(1, 5):
        for i in range(2):
            name, stride = f"layer{layer}.{i}", 2 if layer > 1 and i == 0 else 1
            inner = normalised(x, f"{name}.bn1")
            shortcut = state.get(f"{name}.shortcut.0.weight")
            kept = x if shortcut is None else F.conv2d(inner, shortcut, stride=stride)
            inner = F.conv2d(inner, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = normalised(inner, f"{name}.bn2")
            x = F.conv2d(inner, state[f"{name}.conv2.weight"], padding=1) + kept
    return F.avg_pool2d(x, 4).flatten(1) @ state["linear.weight"].T + state["linear.bias"]


def test_what_it_computes_at_32_px():
    state = weights("preactresnet18", 7, seed=3)
    network = build_victim("preactresnet18", num_classes=7).network.eval()
    network.load_state_dict(state)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        scores, wanted = network(x), restated(state, x)
    assert wanted.std() > 0
    assert torch.allclose(scores, wanted, rtol=1e-4)
