"""The table of a pipeline: rows of its evaluations under the axes that they stand for, and over its seeds."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from zipbatch.results.base import Calls, Images, Result, Share, Text, unit
from zipbatch.results.evaluation import Decibels, EvaluationRow, Measured, Number, Numbers, Seconds, ShareName, Ssim

Deviation = Annotated[
    float | None,
    Field(
        description="Standard deviation over the seeds (n - 1), in the unit of the mean; null of a single seed.",
        json_schema_extra={"unit": "that of the mean"},
    ),
]
_TOLD_APART = Field(None, description="Intervals of seeds have no mean: missing, or null where no seed has one.")
Stages = Annotated[int, unit("stages")]


class _Axes(Result):
    """What a row stands for."""

    axes: dict[Text, Text | None]
    """By axis of the pipeline, the case; null where the row does not depend on the axis."""


class PipelineRow(EvaluationRow, _Axes):
    """A row of an evaluation of a pipeline."""

    victim_stage: Text | None = None
    """The stage that made the victim; missing where none did."""


class SeedlessRow(PipelineRow):
    """A row over seeds that is the same whatever the seed."""

    seeds: list[Annotated[int, unit("seed")]]
    """None."""
    n_seeds: Annotated[int, unit("seeds")]
    """0."""
    seeds_of: list[Text]
    """None."""


class SeedRow(Result):
    """A row over seeds: means with their standard deviations.

    A measure that a seed lacks has no mean. What differs from seed to seed and is no number is null.
    """

    axes: dict[Text, Text | None]
    """By axis of the pipeline but for the seeds, the case."""
    seeds: list[Annotated[int, unit("seed")]]
    """Those that there are rows of."""
    n_seeds: Annotated[int, unit("seeds")]
    """How many."""
    seeds_of: list[Text]
    """The stages that took the seeds."""
    data: Text | None
    """The data, or the stage that made it for each seed."""
    victim: Text | None
    """The victim, or the stage that made it for each seed."""
    attack: Text | None
    """With which the data was staged."""
    purifier: Text | None
    """Method of the purified versions; null without a defence."""
    purified: Text | None
    """The purified version, where it is one for all."""
    version: Text | None
    """Its id, where it is one for all."""
    settings: Text | None
    """The purifier in short; null without a defence."""
    ca: Share | None
    """Mean CA."""
    ca_sd: Deviation = None
    asr: Share | None
    """Mean ASR."""
    asr_sd: Deviation = None
    fpr: Share | None
    """Mean FPR."""
    fpr_sd: Deviation = None
    pa: Share | None
    """Mean PA."""
    pa_sd: Deviation = None
    ra: Share | None
    """Mean RA."""
    ra_sd: Deviation = None
    disrupted: Share | None
    """Mean share of the disrupted."""
    disrupted_sd: Deviation = None
    collapsed: Share | None
    """Mean share of the collapsed."""
    collapsed_sd: Deviation = None
    n_ca: Images
    """Images that CA is of, with the fewest of the seeds; so are the other counts."""
    n_asr: Images
    """Images that ASR is of."""
    n_fpr: Images
    """Images that FPR is of."""
    n_pa: Images
    """Images that PA is of."""
    n_ra: Images
    """Images that RA is of."""
    n_disrupted: Images
    """Images that the disrupted ones are a share of."""
    n_collapsed: Images
    """Images that the collapsed ones are a share of."""
    ca_ci95: None = _TOLD_APART
    asr_ci95: None = _TOLD_APART
    fpr_ci95: None = _TOLD_APART
    pa_ci95: None = _TOLD_APART
    ra_ci95: None = _TOLD_APART
    disrupted_ci95: None = _TOLD_APART
    collapsed_ci95: None = _TOLD_APART
    psnr_clean_db: Decibels | None
    """Mean PSNR of purified clean images."""
    psnr_clean_db_sd: Deviation = None
    ssim_clean: Ssim | None
    """Mean SSIM of purified clean images."""
    ssim_clean_sd: Deviation = None
    psnr_poisoned_db: Decibels | None
    """Mean PSNR of purified images with the trigger."""
    psnr_poisoned_db_sd: Deviation = None
    ssim_poisoned: Ssim | None
    """Mean SSIM of purified images with the trigger."""
    ssim_poisoned_sd: Deviation = None
    flip_rate: Share | None
    """Mean share of images whose answer purification changes."""
    flip_rate_sd: Deviation = None
    n_flip: Images
    """Images that the flips are a share of."""
    der: Annotated[float, unit("0 to 1")] | None
    """Mean DER."""
    der_sd: Deviation = None
    paired: None = Field(None, description="Counts of seeds have no mean: missing, or null where no seed has them.")
    n_quarantined: Images
    """Images in quarantine, in no measure."""
    n_unlabelled: Images
    """Images without a label that can be used."""
    unlabelled_reason: Text | None
    """Why the first of them has none, where it is the same reason for all."""
    calls_least: Calls | None
    """Fewest network calls of the prior that an image took, where it is the same with all seeds."""
    calls_most: Calls | None
    """Most network calls of the prior that an image took, where it is the same with all seeds."""
    seconds_per_image: Seconds | None
    """Mean; null where several machines worked."""
    seconds_per_image_sd: Deviation = None
    seconds_on: Text | None
    """The GPU, or the machine whose CPU it was."""
    purified_first: Text | None
    """When the first shard was done, where it is the same for all."""
    purified_last: Text | None
    """When the last shard was done, where it is the same for all."""
    victim_stage: Text | None = None
    """The stage that made the victims; missing where none did."""
    findings: dict[Text, Annotated[int, unit("seeds")]]
    """How many seeds have which verdict on what is left of the attack."""

    @property
    def shares(self) -> dict[ShareName, Measured]:
        """The measures that tables show, by name."""
        return {
            "ca": Measured(self.ca, self.n_ca, sd=self.ca_sd),
            "asr": Measured(self.asr, self.n_asr, sd=self.asr_sd),
            "fpr": Measured(self.fpr, self.n_fpr, sd=self.fpr_sd),
            "pa": Measured(self.pa, self.n_pa, sd=self.pa_sd),
            "ra": Measured(self.ra, self.n_ra, sd=self.ra_sd),
        }

    @property
    def numbers(self) -> Numbers:
        """The other measures that tables show."""
        stamped, clean = self.psnr_poisoned_db, self.psnr_clean_db
        ssim_stamped, ssim_clean = self.ssim_poisoned, self.ssim_clean
        return Numbers(
            flip_rate=Number(self.flip_rate, self.flip_rate_sd),
            der=Number(self.der, self.der_sd),
            collapsed=Number(self.collapsed, self.collapsed_sd),
            psnr_db=Number(stamped, self.psnr_poisoned_db_sd) if stamped else Number(clean, self.psnr_clean_db_sd),
            ssim=Number(ssim_stamped, self.ssim_poisoned_sd)
            if ssim_stamped
            else Number(ssim_clean, self.ssim_clean_sd),
            seconds_per_image=Number(self.seconds_per_image, self.seconds_per_image_sd),
        )

    @model_serializer(mode="wrap")
    def _as_ever(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Where no time is known, its deviation has always come last but one."""
        fields: dict[str, Any] = handler(self)
        if self.seconds_per_image is None and "seconds_per_image_sd" in fields:
            for name in ("seconds_per_image_sd", "findings"):
                fields[name] = fields.pop(name)
        return fields


class PipelineResults(Result):
    """What a pipeline keeps as ``results.json``."""

    rows: list[PipelineRow]
    """For each evaluation that is there: a victim without a defence, then in each purified form."""
    over_seeds: list[SeedRow | SeedlessRow] = Field(default=[])
    """The same over seeds; missing where the pipeline has none."""
    failed: dict[Text, Text]
    """The reason of each stage that failed, by stage and case."""


class RunAnswer(Result):
    """What ``zipbatch run --json`` prints."""

    rows: list[PipelineRow]
    """For each evaluation that is there: a victim without a defence, then in each purified form."""
    over_seeds: list[SeedRow | SeedlessRow] = Field(default=[])
    """The same over seeds; missing where the pipeline has none."""
    ran: Stages
    """Stages that were run."""
    skipped: Stages
    """Stages that were done before."""
    failed: dict[Text, Text]
    """The reason of each stage that failed, by stage and case."""
    sheets: list[Text]
    """Files of contact sheets."""
