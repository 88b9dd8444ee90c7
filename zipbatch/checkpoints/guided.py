"""OpenAI's guided-diffusion checkpoints, key by key as a diffusers UNet2DModel.

Facts from Dhariwal and Nichol 2021 (arXiv 2105.05233) and the published models' flags (openai/guided-diffusion, MIT).
Such a file is a flat state dict and says nothing of how it was made. What its tensors cannot show (``GuidedFlags``) is,
unless the user says otherwise, what the published unconditional models share: heads of 64 channels in the older order
(each head's query, key and value side by side), and noise as the target over 1000 steps of linear betas.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zipbatch.checkpoints.guided_flags import HEAD_CHANNELS, PUBLISHED, GuidedFlags
from zipbatch.checkpoints.tensors import check_fit
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath

# Width of each level by image size, in units of the first (512 px begins at half of it, see _refuse_kin).
_LEVELS = {256: (1, 1, 2, 2, 4, 4), 128: (1, 1, 2, 3, 4), 64: (1, 2, 3, 4)}
_FIRST = "input_blocks.0.0.weight"
_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_QKV = ("to_q", "to_k", "to_v")
_ATTENTION = {"group_norm": "norm", **dict.fromkeys(_QKV, "qkv"), "to_out.0": "proj_out"}
_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}

Shapes = Mapping[str, torch.Size]


@dataclass(frozen=True, kw_only=True)
class GuidedUNet:
    """What a checkpoint's keys and shapes say of its network.

    Attributes:
        image_size: pixels a side.
        widths: channels of each level, the largest image first.
        blocks: residual blocks a level on the way down (one more on the way up).
        attention: which levels have attention after each of those blocks.
        out_channels: 3, or 6 with a learned sigma.
        flags: what they do not say.
    """

    image_size: int
    widths: tuple[int, ...]
    blocks: int
    attention: tuple[bool, ...]
    out_channels: int
    flags: GuidedFlags = PUBLISHED

    @property
    def attention_widths(self) -> tuple[int, ...]:
        """Channels of each level with attention, and of the middle block, which always has it."""
        return (*(w for w, has in zip(self.widths, self.attention, strict=True) if has), self.widths[-1])

    @property
    def config(self) -> dict[str, Any]:
        """The same network in diffusers' words."""
        down = ["AttnDownBlock2D" if attention else "ResnetDownsampleBlock2D" for attention in self.attention]
        up = ["AttnUpBlock2D" if attention else "ResnetUpsampleBlock2D" for attention in reversed(self.attention)]
        heads = {self.flags.head_width(width) for width in self.attention_widths}
        return {
            "sample_size": self.image_size,
            "in_channels": 3,
            "out_channels": self.out_channels,
            "block_out_channels": list(self.widths),
            "layers_per_block": self.blocks,
            "down_block_types": down,
            "up_block_types": up,
            "downsample_type": "resnet",
            "upsample_type": "resnet",
            "resnet_time_scale_shift": "scale_shift",
            "attention_head_dim": math.gcd(*heads),
            "norm_num_groups": 32,
            "attn_norm_num_groups": 32,
            "norm_eps": 1e-5,
            "act_fn": "silu",
            "time_embedding_type": "positional",
            "flip_sin_to_cos": True,
            "freq_shift": 0,
            **({"attention_heads": self.flags.num_heads} if len(heads) > 1 else {}),
        }

    def sources(self) -> dict[str, str]:
        """The checkpoint's module that each of diffusers' modules has its tensors from."""
        modules = dict(_ENDS)
        for block, source in self._blocks():
            parts = _ATTENTION if ".attentions." in block else _RESIDUAL
            modules |= {f"{block}.{ours}": f"{source}.{theirs}" for ours, theirs in parts.items()}
        return modules

    def _blocks(self) -> Iterator[tuple[str, str]]:
        """Each residual and attention block: diffusers' name and the checkpoint's, in the order of the forward pass."""
        number, last = 1, len(self.widths) - 1
        for level, attention in enumerate(self.attention):
            for block in range(self.blocks):
                yield f"down_blocks.{level}.resnets.{block}", f"input_blocks.{number}.0"
                if attention:
                    yield f"down_blocks.{level}.attentions.{block}", f"input_blocks.{number}.1"
                number += 1
            if level < last:
                yield f"down_blocks.{level}.downsamplers.0", f"input_blocks.{number}.0"
                number += 1
        yield "mid_block.resnets.0", "middle_block.0"
        yield "mid_block.attentions.0", "middle_block.1"
        yield "mid_block.resnets.1", "middle_block.2"
        number = 0
        for up, attention in enumerate(reversed(self.attention)):
            for block in range(self.blocks + 1):
                yield f"up_blocks.{up}.resnets.{block}", f"output_blocks.{number}.0"
                if attention:
                    yield f"up_blocks.{up}.attentions.{block}", f"output_blocks.{number}.1"
                if up < last and block == self.blocks:
                    yield f"up_blocks.{up}.upsamplers.0", f"output_blocks.{number}.{2 if attention else 1}"
                number += 1


def guided_unet(shapes: Shapes, *, where: StoragePath, flags: GuidedFlags = PUBLISHED) -> GuidedUNet:
    """Tell a checkpoint's network from its keys and shapes, and from ``flags`` what these do not show.

    Raises:
        UsageError: no unconditional noise predictor of this kind, and what it is instead.
    """
    _refuse_kin(shapes, where)
    width = shapes[_FIRST][0]
    last = max(_block_number(key) for key in shapes)
    for image_size, multiples in _LEVELS.items():
        blocks, rest = divmod(last + 1, len(multiples))
        blocks -= 1  # a level's last block resamples; the first convolution makes up for the one level without
        firsts = [1 + level * (blocks + 1) for level in range(len(multiples))]
        widths = tuple(width * multiple for multiple in multiples)
        found = [_rows(shapes, f"input_blocks.{number}.0.out_layers.3.weight") for number in firsts]
        if rest or blocks < 1 or any(has not in {0, wanted} for has, wanted in zip(found, widths, strict=True)):
            continue  # 0: missing, which to_diffusers reports with all else that is
        attention = tuple(any(key.startswith(f"input_blocks.{number}.1.") for key in shapes) for number in firsts)
        network = GuidedUNet(
            image_size=image_size,
            widths=widths,
            blocks=blocks,
            attention=attention,
            out_channels=_rows(shapes, "out.2.weight"),
            flags=flags,
        )
        if not all(map(flags.head_width, network.attention_widths)) or width % 32:
            each = flags.head_channels or HEAD_CHANNELS
            what = f"{flags.num_heads} heads" if flags.num_heads else f"heads of {each}"
            raise UsageError(
                f"{where}: its {width} channels make no {what} and no groups of 32; if it has other heads, "
                "say so by ‹num_heads› or ‹head_channels› of 'zipbatch import prior'"
            )
        return network
    raise UsageError(
        f"{where}: its levels are not those of a guided-diffusion network for 256, 128 or 64 px; "
        "the published unconditional one is 256x256_diffusion_uncond.pt"
    )


def to_diffusers(
    state: Mapping[str, Tensor], layout: Shapes, network: GuidedUNet, *, where: StoragePath
) -> dict[str, Tensor]:
    """A checkpoint's tensors under diffusers' names and in its shapes, dtypes kept.

    Args:
        state: the checkpoint.
        layout: every tensor of the UNet2DModel of ``network.config`` and its shape.
        network: from ``guided_unet``.
        where: the file, for errors.

    Raises:
        UsageError: tensors missing, unexpected or of another shape, all of them by the checkpoint's own names.
    """
    modules, wanted, places = network.sources(), {}, {}
    for name, shape in layout.items():
        module, leaf = name.rsplit(".", 1)
        source = places[name] = f"{modules[module]}.{leaf}"
        wanted[source] = _shape_there(module, shape)
    check_fit(state, wanted, where=where)

    def taken(name: str) -> Tensor:
        tensor, kind = state[places[name]], name.rsplit(".", 2)[-2]
        if kind in _QKV:
            tensor = _part_of_qkv(tensor, _QKV.index(kind), network.flags)
        return tensor.reshape(layout[name])

    return {name: taken(name) for name in layout}


def _part_of_qkv(tensor: Tensor, part: int, flags: GuidedFlags) -> Tensor:
    """The rows of the queries, keys or values among those of all three."""
    if flags.new_attention_order:
        return tensor.chunk(len(_QKV))[part]
    head = flags.head_width(len(tensor) // len(_QKV))
    return tensor.reshape(-1, len(_QKV), head, *tensor.shape[1:])[:, part]


def _shape_there(module: str, shape: torch.Size) -> torch.Size:
    """What the checkpoint has: a 1x1 convolution over pixels in a row for each linear map, three of them stacked."""
    if ".attentions." not in module or module.endswith("group_norm"):
        return shape
    rows = shape[0] * len(_QKV) if module.endswith(_QKV) else shape[0]
    return torch.Size([rows, *shape[1:], *([1] if len(shape) == 2 else [])])


def _block_number(key: str) -> int:
    found = re.match(r"input_blocks\.([0-9]{1,4})\.", key)
    return int(found[1]) if found else 0


def _rows(shapes: Shapes, key: str) -> int:
    return shapes[key][0] if shapes.get(key) else 0


def _refuse_kin(shapes: Shapes, where: StoragePath) -> None:
    """Say what other checkpoints are, of this family and beyond."""
    first, time = shapes.get(_FIRST, ()), shapes.get("time_embed.0.weight", ())
    if "conv_in.weight" in shapes and any(key.startswith("down_blocks.") for key in shapes):
        raise UsageError(
            f"{where}: holds the weights of a network in diffusers' format and says nothing else; name its folder, "
            "with config.json and scheduler_config.json"
        )
    if len(first) != 4:
        raise UsageError(
            f"{where}: has no {_FIRST} of four dimensions, so it is no guided-diffusion checkpoint; "
            "of other models give the folder in diffusers' format"
        )
    (width, channels), clock = first[:2], time[1] if len(time) == 2 else first[0]
    reasons = {
        "is a classifier (it has no output_blocks)": not any(key.startswith("output_blocks.") for key in shapes),
        f"is an upsampler ({_FIRST} takes 6 channels: a small image beside the noisy one)": channels == 6,
        f"takes {channels} channels, no RGB images": channels != 3,
        "is class-conditional (it has label_emb.weight)": "label_emb.weight" in shapes,
        "resamples by convolutions of their own, as models from before guided-diffusion do": any(
            key.endswith((".op.weight", ".conv.weight")) for key in shapes
        ),
        f"has {width} channels on its first level and {clock} in its time embedding, as networks for 512 px do, "
        "and diffusers' UNet2DModel has one number for both": clock != width,
        "has an out.2.weight without 3 rows, or 6 with a learned sigma": _rows(shapes, "out.2.weight") not in {3, 6},
    }
    for reason, applies in reasons.items():
        if applies:
            raise UsageError(f"{where}: {reason}; an unconditional one is needed, such as 256x256_diffusion_uncond.pt")
