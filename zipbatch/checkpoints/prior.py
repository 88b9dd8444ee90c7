"""Priors on disk: a diffusers UNet2DModel and its scheduler config, flat or as a pipeline, or OpenAI's single file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

from torch import Tensor, nn

from zipbatch import atomic, storage
from zipbatch.checkpoints.guided import GuidedUNet, guided_unet, to_diffusers
from zipbatch.checkpoints.guided_flags import PUBLISHED, GuidedFlags
from zipbatch.checkpoints.schedule import alpha_bar, prediction_of, schedule_identity
from zipbatch.checkpoints.tensors import check_fit, filled, layout_of, read_json, read_tensors, shapes_of
from zipbatch.checkpoints.unet import BELOW, WIDTHS, build_unet, check_configs, current_names, with_side
from zipbatch.checkpoints.weights import weights_in
from zipbatch.diffusion.prior import Prior, patch_of
from zipbatch.diffusion.sampler import AlphaBar
from zipbatch.errors import UsageError
from zipbatch.kinds import a_few, folder_kind
from zipbatch.storage import StoragePath

SCHEDULER_CONFIG = "scheduler_config.json"
MANIFEST = "manifest.json"
_FORMAT = "a prior is a folder in diffusers' format (unet/ and scheduler/), or a guided-diffusion .pt"


@dataclass(frozen=True, kw_only=True)
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
        widths = self.unet_config.get("block_out_channels") or WIDTHS
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
    unet_config = with_side(unet_config)
    check_configs(unet / "config.json", unet_config, scheduler / SCHEDULER_CONFIG, scheduler_config)
    weights, parts = weights_in(unet)
    return PriorFolder(
        path=path, unet_config=unet_config, scheduler_config=scheduler_config, weights=weights, parts=parts
    )


def _guided_file(path: StoragePath, flags: GuidedFlags) -> PriorFolder:
    guided = guided_unet(shapes_of(read_tensors(path)), where=path, flags=flags)
    return PriorFolder(
        path=path, unet_config=guided.config, scheduler_config=flags.scheduler, weights=path, guided=guided
    )


def load_prior(folder: PriorFolder) -> Prior:
    """Build the network, load every weight strictly as float32, in evaluation mode on the CPU.

    Raises:
        UsageError: an unfit config, or weights that do not fit it; missing and unexpected keys are named.
        DataError: weights of other bytes than are ``known``, or that were changed while they were read.
    """
    with _held(folder):
        unet = filled(partial(build_unet, folder.path, folder.unet_config), _tensors(folder))
    return built(folder, unet).eval().requires_grad_(False)


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
    layout, state = layout_of(partial(build_unet, folder.path, folder.unet_config)), _read(folder)
    if folder.guided is not None:
        return to_diffusers(state, layout, folder.guided, where=folder.weights)
    state = current_names(state)
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


def built(folder: PriorFolder, unet: nn.Module) -> Prior:
    """A prior around its network."""
    config = folder.unet_config
    return Prior(
        unet,
        in_channels=config["in_channels"],
        out_channels=config["out_channels"],
        sample_size=config["sample_size"],
        alpha_bar=alpha_bar_of(folder),
        predicts=prediction_of(folder.path / SCHEDULER_CONFIG, folder.scheduler_config),
    )


def alpha_bar_of(folder: PriorFolder) -> AlphaBar:
    """Cumulative signal variance of the scheduler config, float64 [T]. Raises ``UsageError``: see ``alpha_bar``."""
    return alpha_bar(folder.path / SCHEDULER_CONFIG, folder.scheduler_config)
