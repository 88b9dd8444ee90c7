"""What a guided-diffusion checkpoint does not show of its training, and what is taken for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

HEAD_CHANNELS = 64


@dataclass(frozen=True, kw_only=True)
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
        """What was not said, and what is taken for it, in words by the setting that says otherwise."""
        asked = {
            "‹num_heads› or ‹head_channels›": (
                self.num_heads or self.head_channels,
                f"heads of {HEAD_CHANNELS} channels",
            ),
            "‹new_attention_order›": (self.new_order, "query, key and value side by side in each head"),
            "‹noise_schedule›": (self.noise_schedule, "linear betas"),
            "‹diffusion_steps›": (self.diffusion_steps, "1000 steps"),
            "‹predict_xstart›": (self.predict_xstart, "noise as the network's target"),
        }
        return {flag: usual for flag, (said, usual) in asked.items() if said is None}

    @property
    def told(self) -> str:
        """What was not said, in one line."""
        return ", ".join(self.assumed.values())


PUBLISHED = GuidedFlags()
"""The published unconditional models'."""
