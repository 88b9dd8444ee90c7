"""What ``tune`` finds: how strongly to purify, and which preset clean images can afford."""

from __future__ import annotations

from typing import Annotated, Any

from zipbatch.results.base import Calls, Images, Interval, Result, Share, Text, unit

Exponent = Annotated[float, unit("guidance exponent; weaker as it grows")]
Pixels = Annotated[int, unit("px")]


class StrengthRow(Result):
    """One strength."""

    guidance_exponent: Exponent
    """The strength; the weakest comes first."""
    agreement: Share
    """Answers on images that are not suspected which stay as they are without a defence."""
    residual: Share | None
    """Estimated share of the images with the trigger that still get the target; null without a suspect."""
    residual_upper: Share | None
    """Upper end of its 95 % interval."""
    chosen: bool
    """Whether it was."""
    ca: Share | None
    """CA, from the labels, which the choice does not use."""
    asr: Share | None
    """ASR, from the labels."""
    pa: Share | None
    """PA, from the labels."""


class Undefended(Result):
    """Without a defence, from the labels."""

    ca: Share | None
    """CA."""
    asr: Share | None
    """ASR."""


class _Victim(Result):
    """Whom a choice is for."""

    victim: Text
    """The victim as the user named it."""


class _Choice(_Victim):
    """A choice for a victim."""

    settings: dict[Text, Any]
    """What was chosen, as a preset."""


class _Strengths(Result):
    """What suspect images say of several strengths."""

    data: Text
    """The data as the user named it."""
    images: Images
    """Images that the victim was asked about."""
    suspect: Text | None
    """The class that images flee; null where none stands out."""
    triggered: Annotated[float, unit("images")]
    """Estimated number of images with the trigger."""
    limit: Share
    """Of them, those that may be left in the class."""
    undefended: Undefended
    """Measures without a defence."""
    rungs: list[StrengthRow]
    """Each strength, the weakest first."""
    chosen: Exponent
    """The strength that was chosen."""


class LearnedThresholds(Result):
    """What clean images showed of a prior, for the purifier ``repaint``."""

    why: Text
    """Why the prior's own thresholds would not do."""
    image_size: Pixels
    """Of the images as the prior sees them."""
    residual_steps: list[Annotated[int, unit("timestep")]]
    """Timesteps of the prior that are looked at."""
    levels: list[Annotated[float, unit("pixel values from -1 to 1")]]
    """Mean absolute residual at each of them."""
    shares: list[Share]
    """Shares of clean pixels that reach each score."""
    scores: list[Annotated[float, unit("multiples of the level")]]
    """Scores, one for each of the shares."""


class PresetRow(Result):
    """One preset on clean images."""

    preset: Text
    """As the user names it."""
    purifier: Text
    """In short."""
    calls: Calls
    """Network calls that an image takes at most."""
    calls_at_least: Calls
    """Network calls that an image takes at least."""
    agreement: Share
    """Answers that stay as they are without a defence."""
    agreement_ci95: Interval
    """95 % Wilson interval of the agreement."""
    loss: Share
    """Answers that change."""
    loss_ci95: Interval
    """95 % Wilson interval of the loss."""
    ca: Share | None
    """CA, from the labels, which the choice does not use."""
    ca_loss: Annotated[float, unit("share, -1 to 1")] | None
    """What it costs of CA."""
    chosen: bool
    """Whether it was."""


class FitReport(Result):
    """Which preset clean images can afford."""

    source: Text
    """The clean images as the user named them."""
    split: Text
    """Their split."""
    images: Images
    """Images that the victim was asked about."""
    image_size: Pixels
    """Their size."""
    stretched: bool
    """Whether they were stretched to it."""
    prior: Text
    """The prior's folder."""
    prior_size: Pixels
    """Of the images as the prior sees them."""
    resize: Text | None
    """What ``zipbatch purify --resize`` is to be given."""
    learned: list[LearnedThresholds]
    """Thresholds that were learned from the images."""
    max_loss: Share
    """Answers that may change."""
    ca_before: Share | None
    """CA without a defence, from the labels."""
    n_ca: Images
    """Images that CA is of."""
    presets: list[PresetRow]
    """Each preset, the weakest first."""
    chosen: Text
    """The preset that was chosen."""
    within: bool
    """Whether it changes no more answers than may change."""


class TuneReport(_Strengths, _Victim):
    """What ``zipbatch tune --data`` prints."""

    settings: dict[Text, Any]
    """What was chosen, as a preset."""


class FitAnswer(_Choice):
    """What ``zipbatch tune --fit`` prints."""

    fit: FitReport
    """How each preset does on the clean images, and which was chosen."""


class FitAndTuneAnswer(_Strengths, _Choice):
    """What ``zipbatch tune --fit --data`` prints."""

    fit: FitReport
    """How each preset does on the clean images, and which was chosen; the strengths are of that one."""
