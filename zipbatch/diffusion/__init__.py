"""Guided diffusion: schedule, counter-based noise, projectors, the sampler, the prior's network, tiling. Pure."""

from zipbatch.diffusion.damage import damaged
from zipbatch.diffusion.noise import derived_seed, noise_streams, standard_normal, uniform_integers
from zipbatch.diffusion.prior import Prior
from zipbatch.diffusion.projectors import Apply, Projector, blur, gray, mean_projection, parse_projector
from zipbatch.diffusion.residual import filled, regions, repainted, residual_at, unexplained
from zipbatch.diffusion.restoring import restored
from zipbatch.diffusion.sampler import (
    NoiseAt,
    clipped,
    ddim_step,
    denoise,
    diffuse,
    guided_sample,
    timesteps,
)
from zipbatch.diffusion.tiling import Tiling

__all__ = [
    "Apply",
    "NoiseAt",
    "Prior",
    "Projector",
    "Tiling",
    "blur",
    "clipped",
    "damaged",
    "ddim_step",
    "denoise",
    "derived_seed",
    "diffuse",
    "filled",
    "gray",
    "guided_sample",
    "mean_projection",
    "noise_streams",
    "parse_projector",
    "regions",
    "repainted",
    "residual_at",
    "restored",
    "standard_normal",
    "timesteps",
    "unexplained",
    "uniform_integers",
]
