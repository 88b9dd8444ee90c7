"""Priors on disk: a diffusers UNet2DModel and its scheduler config, flat or as a pipeline, or OpenAI's single file."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from zipbatch import atomic, storage
from zipbatch.checkpoints.guided import GuidedUNet, guided_unet, to_diffusers
from zipbatch.checkpoints.guided_flags import PUBLISHED, GuidedFlags
from zipbatch.checkpoints.schedule import alpha_bar, check_scheduler, prediction_of, schedule_identity
from zipbatch.checkpoints.tensors import check_fit, filled, layout_of, read_json, read_tensors, shapes_of
from zipbatch.checkpoints.weights import WEIGHT_NAMES, weights_in
from zipbatch.diffusion.prior import Prior, patch_of
from zipbatch.diffusion.sampler import AlphaBar
from zipbatch.errors import UsageError
from zipbatch.kinds import a_few, folder_kind
from zipbatch.storage import StoragePath

SCHEDULER_CONFIG = "scheduler_config.json"
MANIFEST = "manifest.json"
MAX_NUMBER, MAX_BLOCKS, MAX_LAYERS = 65_536, 32, 64
"""Of channels, pixels and the like; of blocks; of layers in each: far beyond any network there is."""
_WIDTHS = (224, 448, 672, 896)
"""Of diffusers' UNet2DModel, where a config says none."""
_POSITIVE = ("norm_num_groups", "attention_head_dim", "mid_block_scale_factor")
BELOW = "trained_below"
"""Ours in a network's config: the timesteps from there on were never learned."""
HEADS = "attention_heads"
"""Ours in a network's config, where diffusers' ``attention_head_dim`` does not do: as many heads at every width."""
_FORMAT = "a prior is a folder in diffusers' format (unet/ and scheduler/), or a guided-diffusion .pt"


@dataclass(frozen=True)
class PriorFolder:
    """A prior on a disk or in an object store: configs read and checked, weights not loaded.

    With ``guided``, ``path`` and ``weights`` are one guided-diffusion checkpoint, and the configs are told from it.
    With ``parts``, ``weights`` is the index of these files, which hold the tensors. ``known`` are the digests that its
    ``files`` must have when they are loaded; none while nobody has asked.
    """

    path: StoragePath
    unet_config: dict[str, Any]
    scheduler_config: dict[str, Any]
    weights: StoragePath
    guided: GuidedUNet | None = None
    parts: tuple[StoragePath, ...] = ()
    known: tuple[str, ...] = ()

    @property
    def files(self) -> tuple[StoragePath, ...]:
        """The files that hold its tensors."""
        return self.parts or (self.weights,)

    def read_through(self, local: Callable[[StoragePath], StoragePath]) -> PriorFolder:
        """The same prior, its files read where ``local`` says: they must have the bytes that they have here."""
        there = self.pinned()
        if self.parts:
            return replace(there, parts=tuple(map(local, self.parts)))
        return replace(there, weights=local(self.weights))

    def pinned(self) -> PriorFolder:
        """The same prior with the weights that lie there now, and with no others."""
        return replace(self, known=self.sha256s)

    @property
    def image_size(self) -> int:
        """Side of the images the prior works on, pixels."""
        patch = patch_of(self.unet_config["in_channels"], self.unet_config["out_channels"])
        return int(self.unet_config["sample_size"]) * patch

    @property
    def canvas_bytes(self) -> int:
        """About what a canvas takes in memory while the network works on it, in float32: what its levels keep for their
        way back, and as much again.
        """
        widths = self.unet_config.get("block_out_channels") or _WIDTHS
        layers, side = int(self.unet_config.get("layers_per_block", 2)) + 2, int(self.unet_config["sample_size"])
        return 2 * 4 * sum(layers * int(width) * max(1, side >> level) ** 2 for level, width in enumerate(widths))

    @property
    def training_steps(self) -> int:
        """T of the schedule."""
        return int(self.scheduler_config.get("num_train_timesteps", 1000))

    @property
    def trained_below(self) -> int:
        """The first timestep that it has not learned; T where it has learned all."""
        return min(int(self.unet_config.get(BELOW) or self.training_steps), self.training_steps)

    @cached_property
    def sha256s(self) -> tuple[str, ...]:
        """The digests of its ``files``."""
        return self.known or tuple(map(storage.sha256, self.files))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the weights' bytes, the network's config, and the schedule: what decides the prior's output."""
        config = {key: value for key, value in self.unet_config.items() if not key.startswith("_")}
        if self.guided is not None and self.guided.flags.new_attention_order:
            config["attention_order"] = "new"
        weights = list(self.sha256s) if self.parts else self.sha256s[0]
        schedule = schedule_identity(self.path / SCHEDULER_CONFIG, self.scheduler_config)
        return atomic.sha256_json({"weights": weights, "unet": config, "schedule": schedule})


def open_prior(path: StoragePath, *, flags: GuidedFlags = PUBLISHED) -> PriorFolder:
    """Read a prior's configs: ``unet/`` and ``scheduler/`` of a pipeline, both flat, or told from OpenAI's one file.

    Args:
        path: the folder or file.
        flags: what OpenAI's one file does not show; a folder says it all.

    Raises:
        UsageError: a file is missing, the network is no RGB predictor, or it was trained for another forward process.
    """
    path = path.absolute()
    if path.is_file():
        return _guided_file(path, flags)
    if not path.is_dir():
        raise UsageError(f"{path}: no such folder; {_FORMAT}")
    unet = path / "unet" if (path / "unet").is_dir() else path
    scheduler = path / "scheduler" if (path / "scheduler").is_dir() else path
    if not (unet / "config.json").is_file():
        raise UsageError(f"{unet / 'config.json'}: missing; {path} is {folder_kind(path)}, and {_FORMAT}")
    unet_config = read_json(unet / "config.json")
    if "arch" in unet_config:
        raise UsageError(f"{path}: is {folder_kind(path)}, not a prior: {_FORMAT}")
    if not (scheduler / SCHEDULER_CONFIG).is_file():
        raise UsageError(
            f"{scheduler / SCHEDULER_CONFIG}: missing; without it the prior's noise schedule is unknown. "
            "Copy it from the model's original repository"
        )
    scheduler_config = read_json(scheduler / SCHEDULER_CONFIG)
    unet_config = _with_side(unet_config)
    _check_configs(unet / "config.json", unet_config, scheduler / SCHEDULER_CONFIG, scheduler_config)
    weights, parts = weights_in(unet)
    return PriorFolder(path, unet_config, scheduler_config, weights, parts=parts)


def _guided_file(path: StoragePath, flags: GuidedFlags) -> PriorFolder:
    guided = guided_unet(shapes_of(read_tensors(path)), where=path, flags=flags)
    return PriorFolder(path, guided.config, flags.scheduler, path, guided)


def _with_side(config: dict[str, Any]) -> dict[str, Any]:
    """A square ``sample_size`` that is written as [side, side] as the one number that it is."""
    match config.get("sample_size"):
        case [int(height), int(width)] if height == width:
            return {**config, "sample_size": height}
    return config


def fresh_prior(unet_config: dict[str, Any], scheduler_config: dict[str, Any], *, seed: int) -> Prior:
    """A prior with new weights that depend on the seed alone; the global generator is left as it was.

    Raises:
        UsageError: diffusers cannot build such a network or schedule.
    """
    where = Path("unet settings")
    _check_configs(where, unet_config, Path("schedule settings"), scheduler_config)
    folder = PriorFolder(where, unet_config, scheduler_config, where)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _prior(folder, _build_unet(folder))


def save_prior(
    path: Path,
    prior: Prior,
    unet_config: dict[str, Any],
    scheduler_config: dict[str, Any],
    manifest: dict[str, Any],
    *,
    before_manifest: Callable[[PriorFolder], None] = lambda _: None,
) -> None:
    """Write a diffusers pipeline folder with fp16 weights and a manifest, each file atomically.

    The manifest comes last: a folder that has one is whole. ``before_manifest`` is given the folder without it, to
    put more there.
    """
    state = {key: value.detach().cpu().half() for key, value in prior.unet.state_dict().items()}
    _write_network(path, state, unet_config, scheduler_config)
    before_manifest(open_prior(path))
    atomic.write_json(path / MANIFEST, manifest)


def write_prior(
    path: Path,
    state: dict[str, Tensor],
    unet_config: dict[str, Any],
    scheduler_config: dict[str, Any],
    manifest: dict[str, Any],
) -> None:
    """Write a diffusers pipeline folder with these tensors and a manifest, each file atomically, the manifest last."""
    _write_network(path, state, unet_config, scheduler_config)
    atomic.write_json(path / MANIFEST, manifest)


def _write_network(
    path: Path, state: dict[str, Tensor], unet_config: dict[str, Any], scheduler_config: dict[str, Any]
) -> None:
    model_index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    atomic.write_json(path / "model_index.json", model_index)
    atomic.write_json(path / "scheduler" / SCHEDULER_CONFIG, {"_class_name": "DDPMScheduler", **scheduler_config})
    atomic.write_json(path / "unet" / "config.json", {"_class_name": "UNet2DModel", **unet_config})
    contiguous = {key: value.contiguous() for key, value in state.items()}
    atomic.write_bytes(path / "unet" / WEIGHT_NAMES[0], save(contiguous))


def _check_configs(
    unet_file: StoragePath, unet: dict[str, Any], scheduler_file: StoragePath, scheduler: dict[str, Any]
) -> None:
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


def load_prior(folder: PriorFolder) -> Prior:
    """Build the network, load every weight strictly as float32, in evaluation mode on the CPU.

    Raises:
        UsageError: an unfit config, or weights that do not fit it; missing and unexpected keys are named.
        DataError: weights of other bytes than are ``known``, or that were changed while they were read.
    """
    with _held(folder):
        unet = filled(partial(_build_unet, folder), _tensors(folder))
    return _prior(folder, unet).eval().requires_grad_(False)


def prior_tensors(folder: PriorFolder) -> dict[str, Tensor]:
    """Copies of the weights under diffusers' names, held against the network strictly, dtypes as they are in the file.

    Raises:
        UsageError: as ``load_prior``.
        DataError: as ``load_prior``.
    """
    with _held(folder):
        return {key: tensor.clone() for key, tensor in _tensors(folder).items()}  # they may be views into the file


@contextmanager
def _held(folder: PriorFolder) -> Iterator[None]:
    """Its files are those that are ``known``, and stay as they are, while they are read within."""
    with ExitStack() as held:
        for number, file in enumerate(folder.files):
            held.enter_context(storage.held_to(file, folder.known[number] if folder.known else None))
        yield


def _tensors(folder: PriorFolder) -> dict[str, Tensor]:
    layout, state = layout_of(partial(_build_unet, folder)), _read(folder)
    if folder.guided is not None:
        return to_diffusers(state, layout, folder.guided, where=folder.weights)
    state = _current_names(state)
    check_fit(state, layout, where=folder.weights)
    return state


def _read(folder: PriorFolder) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for file in folder.files:
        found = read_tensors(file)
        if twice := sorted(set(found) & set(state)):
            raise UsageError(f"{file}: holds tensors that another of its parts holds too: {a_few(twice)}")
        state |= found
    return state


def _prior(folder: PriorFolder, unet: nn.Module) -> Prior:
    config = folder.unet_config
    return Prior(
        unet,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        sample_size=config["sample_size"],
        alpha_bar=alpha_bar_of(folder),
        predicts=prediction_of(folder.path / SCHEDULER_CONFIG, folder.scheduler_config),
    )


def _current_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Attention tensors under the names that diffusers gives them since 0.15; others as they are."""
    old = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}

    def current(name: str) -> str:
        for before, after in old.items():
            if ".attentions." in name:
                name = name.replace(before, after)
        return name

    return {current(name): tensor for name, tensor in state.items()}


def _build_unet(folder: PriorFolder) -> nn.Module:
    from diffusers.models.unets.unet_2d import UNet2DModel

    known = inspect.signature(UNet2DModel.__init__).parameters
    config = {key: value for key, value in folder.unet_config.items() if not key.startswith("_")}
    heads = config.pop(HEADS, None)
    config.pop(BELOW, None)
    unknown = sorted(set(config) - set(known))
    if unknown:
        raise UsageError(f"{folder.path}: the network's config has unknown fields: {', '.join(unknown)}")
    for field, value in config.items():
        _check_kind(folder.path, field, value, known[field].default)
    try:
        unet = UNet2DModel(**config)
    except Exception as error:  # diffusers checks its arguments nowhere: whatever breaks, the config is to blame
        raise UsageError(f"{folder.path}: the network's config is not one that diffusers can build: {error}") from error
    assert isinstance(unet, nn.Module)
    if heads is not None:
        _set_heads(unet, heads, where=folder.path)
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


def alpha_bar_of(folder: PriorFolder) -> AlphaBar:
    """Cumulative signal variance of the scheduler config, float64 [T]. Raises ``UsageError``: see ``alpha_bar``."""
    return alpha_bar(folder.path / SCHEDULER_CONFIG, folder.scheduler_config)
