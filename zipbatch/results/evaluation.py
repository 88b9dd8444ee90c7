"""Rows of ``evaluate``: a victim on one form of the data, without a defence or purified."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from zipbatch.results.base import Calls, Images, Interval, Result, Share, Text, unit

ShareName = Literal["ca", "asr", "fpr", "pa", "ra"]
Seconds = Annotated[float, unit("s an image")]
Decibels = Annotated[float, unit("dB")]
Ssim = Annotated[float, unit("SSIM, -1 to 1")]


class Measured(NamedTuple):
    """A share of ``n`` images with its 95 % interval, or, over seeds, with its standard deviation."""

    value: float | None
    n: int
    ci95: tuple[float, float] | None = None
    sd: float | None = None


class Number(NamedTuple):
    """A number, over seeds with its standard deviation."""

    value: float | None
    sd: float | None = None


class Numbers(NamedTuple):
    """Measures of a row beside its shares; PSNR and SSIM are of images with the trigger, else of clean ones."""

    flip_rate: Number
    der: Number
    collapsed: Number
    psnr_db: Number
    ssim: Number
    seconds_per_image: Number


class PairedCounts(Result):
    """Two purified forms on the same images."""

    only_here: Images
    """Images answered as wanted in this form alone: with their label, for ASR with the target."""
    only_there: Images
    """Images answered as wanted in the first purified form alone."""
    n: Images
    """Images that both were asked about."""
    p: Annotated[float, unit("probability, 0 to 1")] | None
    """Two-sided p-value of McNemar's test; null without images."""


class Paired(Result):
    """A purified form against the first one."""

    against: Text
    """The first purified form."""
    ca: PairedCounts | None = None
    """On clean images."""
    asr: PairedCounts | None = None
    """On images with the trigger whose true class is not the target."""


class Cost(Result):
    """What a purified version took, an image, as far as the store knows."""

    calls_least: Calls | None = None
    """Fewest network calls of the prior that an image took."""
    calls_most: Calls | None = None
    """Most network calls of the prior that an image took."""
    seconds_per_image: Seconds | None = None
    """Of one CPU core or one GPU, without reading and writing; null where several machines worked."""
    seconds_on: Text | None = None
    """The GPU, or the machine whose CPU it was; several are listed."""
    purified_first: Text | None = None
    """When the first shard was done, UTC, ISO 8601."""
    purified_last: Text | None = None
    """When the last shard was done, UTC, ISO 8601."""


NO_COST = Cost(
    calls_least=None,
    calls_most=None,
    seconds_per_image=None,
    seconds_on=None,
    purified_first=None,
    purified_last=None,
)
"""Of a row without a purified version, and where nothing tells."""


class _Measures(Result):
    """What a victim answers on one form of the data."""

    data: Text
    """The data as the user named it."""
    victim: Text
    """The victim as the user named it."""
    attack: Text | None
    """With which the data was staged; null for data that was not."""
    purifier: Text | None
    """Method of the purified version; null without a defence."""
    purified: Text | None
    """The purified version as the user named it; null without a defence."""
    version: Text | None
    """Its id in the store; null without a defence."""
    settings: Text | None
    """Its purifier in short; null without a defence."""
    ca: Share | None
    """CA: clean images that are answered with their label."""
    asr: Share | None
    """ASR: images with the trigger, of other classes than the target, that are answered with the target."""
    fpr: Share | None
    """FPR: clean images, of other classes than the target, that are answered with the target."""
    pa: Share | None
    """PA: images with the trigger that are answered with their true class."""
    ra: Share | None
    """RA: as PA, without images of the target class."""
    disrupted: Share | None
    """Images with the trigger that are answered neither with the target nor with their true class."""
    collapsed: Share | None
    """Clean images whose label was answered as they came, and is no longer."""
    n_ca: Images
    """Images that CA is of."""
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
    ca_ci95: Interval | None
    """95 % Wilson interval of CA."""
    asr_ci95: Interval | None
    """95 % Wilson interval of ASR."""
    fpr_ci95: Interval | None
    """95 % Wilson interval of FPR."""
    pa_ci95: Interval | None
    """95 % Wilson interval of PA."""
    ra_ci95: Interval | None
    """95 % Wilson interval of RA."""
    disrupted_ci95: Interval | None
    """95 % Wilson interval of the disrupted."""
    collapsed_ci95: Interval | None
    """95 % Wilson interval of the collapsed."""
    psnr_clean_db: Decibels | None
    """Mean PSNR of purified clean images against the clean ones."""
    ssim_clean: Ssim | None
    """Mean SSIM of purified clean images against the clean ones."""
    psnr_poisoned_db: Decibels | None
    """Mean PSNR of purified images with the trigger against the clean ones."""
    ssim_poisoned: Ssim | None
    """Mean SSIM of purified images with the trigger against the clean ones."""
    flip_rate: Share | None
    """Images whose answer purification changes; null without a defence."""
    n_flip: Images
    """Images that the flips are a share of."""
    fled: dict[Text, Images]
    """How many images' answers left each class, by its name."""
    der: Annotated[float, unit("0 to 1")] | None
    """DER: (what the defence takes of ASR - what it costs of CA + 1) / 2; null without a defence."""
    paired: Paired | None
    """Against the first purified form, image by image; null for that and without a defence."""
    n_quarantined: Images
    """More images that some version holds in quarantine: they are in no measure."""
    n_unlabelled: Images
    """Images without a label that can be used: only their flips are measured."""
    unlabelled_reason: Text | None
    """Why the first of them has none."""


class EvaluationRow(Cost, _Measures):
    """A victim on one form of the data: its measures, and what purifying took."""

    @property
    def shares(self) -> dict[ShareName, Measured]:
        """The measures that tables show, by name."""
        return {
            "ca": Measured(self.ca, self.n_ca, self.ca_ci95),
            "asr": Measured(self.asr, self.n_asr, self.asr_ci95),
            "fpr": Measured(self.fpr, self.n_fpr, self.fpr_ci95),
            "pa": Measured(self.pa, self.n_pa, self.pa_ci95),
            "ra": Measured(self.ra, self.n_ra, self.ra_ci95),
        }

    @property
    def numbers(self) -> Numbers:
        """The other measures that tables show."""
        return Numbers(
            flip_rate=Number(self.flip_rate),
            der=Number(self.der),
            collapsed=Number(self.collapsed),
            psnr_db=Number(self.psnr_poisoned_db or self.psnr_clean_db),
            ssim=Number(self.ssim_poisoned or self.ssim_clean),
            seconds_per_image=Number(self.seconds_per_image),
        )


class Evaluation(Result):
    """What ``zipbatch evaluate --json`` prints, and what a pipeline keeps of an evaluation."""

    rows: list[EvaluationRow]
    """For each victim, without a defence and then in each purified form."""
