"""OpenAI's guided-diffusion UNet restated as plain functions over a state dict, for outputs to be held against.

Written from the paper (Dhariwal and Nichol 2021, arXiv 2105.05233, appendix) and the layout of the published files; it
shares nothing with the package, and no module with diffusers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

State = dict[str, Tensor]
Resample = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Settings:
    """Flags of a model: the defaults are those of 256x256_diffusion_uncond.pt."""

    channels: int = 256
    multiples: tuple[int, ...] = (1, 1, 2, 2, 4, 4)
    blocks: int = 2
    attention: tuple[int, ...] = (3, 4, 5)
    out: int = 6
    heads: int | None = None
    new_order: bool = False


@dataclass(frozen=True)
class Block:
    """A numbered block: its widths, whether it has attention, and how its own residual block resamples."""

    name: str
    inward: int
    width: int
    attention: bool = False
    resample: str = ""


def down_blocks(settings: Settings) -> Iterator[Block]:
    """input_blocks.1 and on."""
    number, before = 1, settings.channels
    for level, multiple in enumerate(settings.multiples):
        width = multiple * settings.channels
        for _ in range(settings.blocks):
            yield Block(f"input_blocks.{number}", before, width, level in settings.attention)
            number, before = number + 1, width
        if level + 1 < len(settings.multiples):
            yield Block(f"input_blocks.{number}", width, width, resample="down")
            number += 1


def up_blocks(settings: Settings) -> Iterator[Block]:
    """output_blocks.0 and on; each takes one earlier activation along."""
    earlier = [settings.channels, *(block.width for block in down_blocks(settings))]
    number, before = 0, earlier[-1]
    for level in reversed(range(len(settings.multiples))):
        width = settings.multiples[level] * settings.channels
        for block in range(settings.blocks + 1):
            grow = level > 0 and block == settings.blocks
            inward = before + earlier.pop()
            yield Block(f"output_blocks.{number}", inward, width, level in settings.attention, "up" if grow else "")
            number, before = number + 1, width


def random_state(settings: Settings, *, seed: int = 0) -> State:
    """A checkpoint of random numbers, no tensor of zeros, scaled so that activations neither die nor explode."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}

    def put(name: str, *shape: int, around: float = 0.0, scale: float | None = None) -> None:
        spread = scale if scale is not None else 1 / math.sqrt(math.prod(shape[1:]))
        state[f"{name}.weight"] = torch.randn(shape, generator=generator).mul_(spread).add_(around)
        state[f"{name}.bias"] = torch.randn(shape[0], generator=generator).mul_(0.1)

    def residual(name: str, inward: int, width: int) -> None:
        put(f"{name}.in_layers.0", inward, around=1, scale=0.1)
        put(f"{name}.in_layers.2", width, inward, 3, 3)
        put(f"{name}.emb_layers.1", 2 * width, 4 * settings.channels)
        put(f"{name}.out_layers.0", width, around=1, scale=0.1)
        put(f"{name}.out_layers.3", width, width, 3, 3)
        if inward != width:
            put(f"{name}.skip_connection", width, inward, 1, 1)

    def attention(name: str, width: int) -> None:
        put(f"{name}.norm", width, around=1, scale=0.1)
        put(f"{name}.qkv", 3 * width, width, 1)
        put(f"{name}.proj_out", width, width, 1)

    put("time_embed.0", 4 * settings.channels, settings.channels)
    put("time_embed.2", 4 * settings.channels, 4 * settings.channels)
    put("input_blocks.0.0", settings.channels, 3, 3, 3)
    for block in [*down_blocks(settings), *up_blocks(settings)]:
        residual(f"{block.name}.0", block.inward, block.width)
        if block.attention:
            attention(f"{block.name}.1", block.width)
        if block.resample == "up":
            residual(f"{block.name}.{1 + block.attention}", block.width, block.width)
    deepest = settings.multiples[-1] * settings.channels
    residual("middle_block.0", deepest, deepest)
    attention("middle_block.1", deepest)
    residual("middle_block.2", deepest, deepest)
    put("out.0", settings.channels, around=1, scale=0.1)
    put("out.2", settings.out, settings.channels, 3, 3)
    return state


def forward(state: State, settings: Settings, x: Tensor, t: Tensor) -> Tensor:
    """Images [B, 3, H, W] and timesteps [B] -> noise estimate, and the variance's channels after it."""

    def layer(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def norm(name: str, h: Tensor) -> Tensor:
        return F.group_norm(h, 32, *layer(name), eps=1e-5)

    def residual(name: str, h: Tensor, resample: Resample = lambda h: h) -> Tensor:
        inner = F.conv2d(resample(F.silu(norm(f"{name}.in_layers.0", h))), *layer(f"{name}.in_layers.2"), padding=1)
        scale, shift = F.linear(F.silu(clock), *layer(f"{name}.emb_layers.1"))[:, :, None, None].chunk(2, dim=1)
        inner = F.silu(norm(f"{name}.out_layers.0", inner) * (1 + scale) + shift)
        inner = F.conv2d(inner, *layer(f"{name}.out_layers.3"), padding=1)
        h = resample(h)
        if f"{name}.skip_connection.weight" in state:
            h = F.conv2d(h, *layer(f"{name}.skip_connection"))
        return h + inner

    def attention(name: str, h: Tensor) -> Tensor:
        batch, width = h.shape[:2]
        pixels = norm(f"{name}.norm", h).flatten(2)
        out, side = [], width // settings.heads if settings.heads else 64
        for query, key, value in heads_of(F.conv1d(pixels, *layer(f"{name}.qkv")), side, settings.new_order):
            weight = torch.softmax(query.transpose(1, 2) @ key / math.sqrt(side), dim=-1)
            out.append(value @ weight.transpose(1, 2))
        return h + F.conv1d(torch.cat(out, dim=1), *layer(f"{name}.proj_out")).view(batch, width, *h.shape[2:])

    half = settings.channels // 2
    angle = t.float()[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / half)
    clock = F.linear(torch.cat([angle.cos(), angle.sin()], dim=1), *layer("time_embed.0"))
    clock = F.linear(F.silu(clock), *layer("time_embed.2"))

    h = F.conv2d(x, *layer("input_blocks.0.0"), padding=1)
    kept = [h]
    for block in down_blocks(settings):
        h = residual(f"{block.name}.0", h, halved if block.resample else same)
        h = attention(f"{block.name}.1", h) if block.attention else h
        kept.append(h)
    h = residual("middle_block.2", attention("middle_block.1", residual("middle_block.0", h)))
    for block in up_blocks(settings):
        h = residual(f"{block.name}.0", torch.cat([h, kept.pop()], dim=1))
        h = attention(f"{block.name}.1", h) if block.attention else h
        h = residual(f"{block.name}.{1 + block.attention}", h, doubled) if block.resample else h
    return F.conv2d(F.silu(norm("out.0", h)), *layer("out.2"), padding=1)


def heads_of(qkv: Tensor, side: int, new_order: bool) -> list[tuple[Tensor, ...]]:
    """Query, key and value of each head: heads first, or in the newer order all queries, all keys, all values first."""
    if new_order:
        return list(zip(*(part.split(side, dim=1) for part in qkv.chunk(3, dim=1)), strict=True))
    return [head.split(side, dim=1) for head in qkv.split(3 * side, dim=1)]


def same(h: Tensor) -> Tensor:
    """As it is."""
    return h


def halved(h: Tensor) -> Tensor:
    """The mean of each 2x2 block."""
    batch, width, rows, columns = h.shape
    return h.view(batch, width, rows // 2, 2, columns // 2, 2).mean(dim=(3, 5))


def doubled(h: Tensor) -> Tensor:
    """Each pixel as a 2x2 block."""
    return h.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
