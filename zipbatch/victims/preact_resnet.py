"""Pre-activation ResNet (He et al. 2016, arXiv 1603.05027) with the CIFAR stem, as BackdoorBench trains it.

Module names are those of its checkpoints: no normalisation after the stem or before the head, and shortcuts that are a
convolution alone, from the activated input.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class PreActBlock(nn.Module):
    """Normalise, activate, convolve; twice. The shortcut is the input, projected where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x))
        kept: Tensor = self.shortcut(activated) if len(self.shortcut) else x
        out: Tensor = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return out + kept


class PreActResNet(nn.Module):
    """Normalised images [B, 3, H, W] -> logits [B, num_classes]; any H, W of 8 or more.

    Args:
        blocks: blocks per stage; each stage after the first halves the resolution and doubles the width.
        num_classes: size of the head.
    """

    def __init__(self, blocks: Sequence[int], *, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        channels, stages = 64, []
        for number, depth in enumerate(blocks):
            out = 64 * 2**number
            stages.append(f"layer{number + 1}")
            rows = [PreActBlock(channels if i == 0 else out, out, 2 if i == 0 and number else 1) for i in range(depth)]
            self.add_module(stages[-1], nn.Sequential(*rows))
            channels = out
        self._stages = tuple(stages)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv1(x)
        for stage in self._stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits
