"""VGG for small images: the published layout, name by name, and what BackdoorBox's own forward pass computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from tests.foreign import weights
from zipbatch.victims import build_victim
from zipbatch.victims.vgg import DEPTHS

PLAN = {
    11: "64 M 128 M 256 256 M 512 512 M 512 512 M",
    13: "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    16: "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    19: "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
"""The paper's table 1, columns A, B, D and E."""


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("layers", sorted(DEPTHS))
def test_outputs_equal_the_published_layout(layers: int, batch_norm: bool):
    arch = f"vgg{layers}{'_bn' if batch_norm else ''}"
    state = weights(arch, 6)
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    network = build_victim(arch, num_classes=6).network.eval()
    network.load_state_dict(state)
    h, number = x, 0
    for width in PLAN[layers].split():
        if width == "M":
            h, number = F.max_pool2d(h, 2, 2), number + 1
            continue
        assert len(state[f"features.{number}.weight"]) == int(width)
        h, number = (
            F.conv2d(h, state[f"features.{number}.weight"], state[f"features.{number}.bias"], padding=1),
            number + 1,
        )
        if batch_norm:
            norm = [state[f"features.{number}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias")]
            h, number = F.batch_norm(h, *norm), number + 1
        h, number = F.relu(h), number + 1
    expected = F.linear(h.view(len(h), -1), state["classifier.weight"], state["classifier.bias"])
    with torch.inference_mode():
        assert torch.allclose(network(x), expected, rtol=1e-4, atol=1e-5)
