"""ResNets with the CIFAR stem (He et al. 2015, arXiv 1512.03385): 3 x 3 first convolution, no max-pool.

Module names (``conv1 bn1 layer1..4 shortcut linear``) are those of the published victims, so their weights fit.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

EXPANSION = 4


def _shortcut(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """What a block passes on of its input: all of it, projected where the shape changes."""
    if stride == 1 and channels_in == channels_out:
        return nn.Sequential()
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 1, stride=stride, bias=False), nn.BatchNorm2d(channels_out)
    )


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, projected where the shape changes."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A 3 x 3 convolution between two of 1 x 1, the last four times as wide, and a shortcut as in ``BasicBlock``."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        width = channels_out // EXPANSION
        self.conv1 = nn.Conv2d(channels_in, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.shortcut = _shortcut(channels_in, channels_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


class CifarResNet(nn.Module):
    """Normalised images [B, 3, H, W] -> logits [B, num_classes]; any H, W of 8 or more.

    Args:
        blocks: blocks per stage; each stage after the first halves the resolution and doubles the width.
        width: channels of the first stage, before a bottleneck widens them.
        num_classes: size of the head.
        bottleneck: blocks of three convolutions, four times as wide.
    """

    def __init__(self, blocks: Sequence[int], *, width: int, num_classes: int, bottleneck: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels, stages, block = width, [], Bottleneck if bottleneck else BasicBlock
        for number, depth in enumerate(blocks):
            out = width * 2**number * (EXPANSION if bottleneck else 1)
            stages.append(f"layer{number + 1}")
            rows = [block(channels if i == 0 else out, out, 2 if i == 0 and number else 1) for i in range(depth)]
            self.add_module(stages[-1], nn.Sequential(*rows))
            channels = out
        self._stages = tuple(stages)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        for stage in self._stages:
            out = self.get_submodule(stage)(out)
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits
