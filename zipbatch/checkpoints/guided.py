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
from typing import Any, Literal

import torch
from torch import Tensor

from zipbatch.checkpoints.tensors import check_fit
from zipbatch.errors import UsageError
from zipbatch.places import Place

HEAD_CHANNELS = 64
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


@dataclass(frozen=True)
class GuidedFlags:
    """Flags of guided-diffusion's training scripts that a checkpoint's tensors do not show. None: as published.

    Attributes:
        num_heads: heads of each attention, whatever its width; instead of ``head_channels``.
        head_channels: channels of a head (``num_head_channels`` there).
        new_order: all heads' queries, then all keys, then all values (``use_new_attention_order`` there).
        noise_schedule: linear or cosine.
        diffusion_steps: T.
        predict_xstart: the network predicts the clean image.
    """

    num_heads: int | None = None
    head_channels: int | None = None
    new_order: bool | None = None
    noise_schedule: Literal["linear", "cosine"] | None = None
    diffusion_steps: int | None = None
    predict_xstart: bool | None = None

    @property
    def new_attention_order(self) -> bool:
        """Whether queries, keys and values are apart before heads are."""
        return bool(self.new_order)

    @property
    def scheduler(self) -> dict[str, Any]:
        """The schedule and the target, as the config of diffusers' DDPMScheduler."""
        steps = self.diffusion_steps or 1000
        scale = 1000 / steps  # of the linear betas, so that as much noise is added in fewer steps
        return {
            "num_train_timesteps": steps,
            "beta_schedule": "squaredcos_cap_v2" if self.noise_schedule == "cosine" else "linear",
            "beta_start": scale * 1e-4,
            "beta_end": scale * 0.02,
            "prediction_type": "sample" if self.predict_xstart else "epsilon",
            "clip_sample": False,
        }

    def head_width(self, channels: int) -> int:
        """Channels of a head in an attention of that width; 0 where they do not divide it."""
        heads = self.num_heads or channels // (self.head_channels or HEAD_CHANNELS)
        width = channels // heads if self.num_heads else self.head_channels or HEAD_CHANNELS
        return width if width * heads == channels else 0

    @property
    def meaning(self) -> dict[str, Any]:
        """What the flags come to, each meaning written in one way."""
        heads = (
            {"num_heads": self.num_heads} if self.num_heads else {"head_channels": self.head_channels or HEAD_CHANNELS}
        )
        return {**heads, "new_order": self.new_attention_order, "scheduler": self.scheduler}

    @property
    def assumed(self) -> dict[str, str]:
        """What was not said, and what is taken for it, in words by the flag that says otherwise."""
        asked = {
            "--num-heads or --head-channels": (
                self.num_heads or self.head_channels,
                f"heads of {HEAD_CHANNELS} channels",
            ),
            "--new-attention-order": (self.new_order, "query, key and value side by side in each head"),
            "--noise-schedule": (self.noise_schedule, "linear betas"),
            "--diffusion-steps": (self.diffusion_steps, "1000 steps"),
            "--predict-xstart": (self.predict_xstart, "noise as the network's target"),
        }
        return {flag: usual for flag, (said, usual) in asked.items() if said is None}

    @property
    def told(self) -> str:
        """What was not said, in one line."""
        return ", ".join(self.assumed.values())


PUBLISHED = GuidedFlags()


@dataclass(frozen=True)
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


def guided_unet(shapes: Shapes, *, where: Place, flags: GuidedFlags = PUBLISHED) -> GuidedUNet:
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
        network = GuidedUNet(image_size, widths, blocks, attention, _rows(shapes, "out.2.weight"), flags)
        if not all(map(flags.head_width, network.attention_widths)) or width % 32:
            each = flags.head_channels or HEAD_CHANNELS
            what = f"{flags.num_heads} heads" if flags.num_heads else f"heads of {each}"
            raise UsageError(
                f"{where}: its {width} channels make no {what} and no groups of 32; if it has other heads, "
                "say so by --num-heads or --head-channels of 'zipbatch import prior'"
            )
        return network
    raise UsageError(
        f"{where}: its levels are not those of a guided-diffusion network for 256, 128 or 64 px; "
        "the published unconditional one is 256x256_diffusion_uncond.pt"
    )


def to_diffusers(
    state: Mapping[str, Tensor], layout: Shapes, network: GuidedUNet, *, where: Place
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


def _refuse_kin(shapes: Shapes, where: Place) -> None:
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
