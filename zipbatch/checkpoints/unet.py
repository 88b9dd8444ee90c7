"""The network of a prior: its config held against what diffusers builds, and built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from zipbatch.checkpoints.schedule import check_scheduler
from zipbatch.diffusion.prior import patch_of
from zipbatch.errors import UsageError
from zipbatch.storage import StoragePath

MAX_NUMBER, MAX_BLOCKS, MAX_LAYERS = 65_536, 32, 64
"""Of channels, pixels and the like; of blocks; of layers in each: far beyond any network there is."""
WIDTHS = (224, 448, 672, 896)
"""Of diffusers' UNet2DModel, where a config says none."""
_POSITIVE = ("norm_num_groups", "attention_head_dim", "mid_block_scale_factor")
BELOW = "trained_below"
"""Ours in a network's config: the timesteps from there on were never learned."""
HEADS = "attention_heads"
"""Ours in a network's config, where diffusers' ``attention_head_dim`` does not do: as many heads at every width."""


def check_configs(
    unet_file: StoragePath, unet: dict[str, Any], scheduler_file: StoragePath, scheduler: dict[str, Any]
) -> None:
    """Raises ``UsageError`` for a network or a schedule that is no prior's; names the file and the field."""
    name = unet.get("_class_name", "UNet2DModel")
    if name != "UNet2DModel":
        raise UsageError(f"{unet_file}: _class_name is {name!r}, only UNet2DModel (unconditional) is supported")
    for field in ("in_channels", "out_channels", "sample_size"):
        if not isinstance(unet.get(field), int) or unet[field] < 1:
            square = ", or twice the same in a list" if field == "sample_size" else ""
            raise UsageError(f"{unet_file}: {field} must be a whole number{square}, got {unet.get(field)!r}")
    _check_scale(unet_file, unet)
    if unet.get("num_class_embeds") is not None or unet.get("class_embed_type") is not None:
        raise UsageError(f"{unet_file}: is class-conditional; an unconditional prior is needed")
    try:
        patch_of(unet["in_channels"], unet["out_channels"])
    except ValueError as error:
        raise UsageError(f"{unet_file}: {error}") from error
    check_scheduler(scheduler_file, scheduler)


def _check_scale(unet_file: StoragePath, unet: dict[str, Any]) -> None:
    """No config makes a network that takes ages to build."""
    if not isinstance(unet.get(BELOW, 1), int) or unet.get(BELOW, 1) < 1:
        raise UsageError(f"{unet_file}: {BELOW} must be a timestep of 1 or more, got {unet[BELOW]!r}")
    for field, value in unet.items():
        numbers = [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, int | float)]
        limit = MAX_LAYERS if field == "layers_per_block" else MAX_NUMBER
        if any(abs(number) > limit for number in numbers):
            raise UsageError(f"{unet_file}: {field} must be at most {limit}")
        if isinstance(value, list) and len(value) > MAX_BLOCKS:
            raise UsageError(f"{unet_file}: {field} has {len(value)} entries, over {MAX_BLOCKS}")


def with_side(config: dict[str, Any]) -> dict[str, Any]:
    """A square ``sample_size`` that is written as [side, side] as the one number that it is."""
    match config.get("sample_size"):
        case [int(height), int(width)] if height == width:
            return {**config, "sample_size": height}
    return config


def build_unet(where: StoragePath, unet_config: Mapping[str, Any]) -> nn.Module:
    """The network of a config, as diffusers builds it.

    Raises:
        UsageError: diffusers cannot build it; names ``where`` and what is wrong.
    """
    from diffusers.models.unets.unet_2d import UNet2DModel

    known = inspect.signature(UNet2DModel.__init__).parameters
    config = {key: value for key, value in unet_config.items() if not key.startswith("_")}
    heads = config.pop(HEADS, None)
    config.pop(BELOW, None)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise UsageError(f"{where}: the network's config has unknown fields: {', '.join(unknown)}")
    for field, value in config.items():
        _check_kind(where, field, value, known[field].default)
    try:
        unet = UNet2DModel(**config)
    except Exception as error:  # diffusers checks its arguments nowhere: whatever breaks, the config is to blame
        raise UsageError(f"{where}: the network's config is not one that diffusers can build: {error}") from error
    assert isinstance(unet, nn.Module)
    if heads is not None:
        _set_heads(unet, heads, where=where)
    return unet


def _set_heads(unet: nn.Module, heads: object, *, where: StoragePath) -> None:
    """Give every attention that many heads, however wide it is."""
    from diffusers.models.attention_processor import Attention

    for module in unet.modules():
        if isinstance(module, Attention):
            if not isinstance(heads, int) or heads < 1 or module.inner_dim % heads:
                raise UsageError(
                    f"{where}: the network's config says {HEADS} = {heads!r} for {module.inner_dim} channels"
                )
            module.heads = module.sliceable_head_dim = heads
            module.scale = (module.inner_dim // heads) ** -0.5


def _check_kind(path: StoragePath, field: str, value: object, default: object) -> None:
    """Hold a field against its default's type: diffusers would find out in the first forward pass."""
    kinds = {bool: bool, int: int, float: int | float, str: str}
    kind = kinds.get(type(default))
    odd = kind is not None and value is not None and not isinstance(value, kind)
    odd |= isinstance(value, bool) and type(default) in {int, float}
    if odd or (isinstance(value, int | float) and value < 0) or (field in _POSITIVE and value == 0):
        raise UsageError(f"{path}: the network's config says {field} = {str(value)[:40]!r}; its default is {default!r}")


def current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Attention tensors under the names that diffusers gives them since 0.15; others as they are."""
    old = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

    def current(name: str) -> str:
        for before, after in old.items():
            if ".attentions." in name:
                name = name.replace(before, after)
        return name

    return {current(name): tensor for name, tensor in state.items()}
