"""What ``audit`` finds: a verdict, and a row for each image."""

from __future__ import annotations

from typing import Annotated, Literal

from zipbatch.results.base import Images, Result, Share, Text, unit

Finding = Literal["backdoored", "nothing found", "too few images", "manipulated images"]
Answers = Annotated[int, unit("answers")]
Deviations = Annotated[float, unit("standard deviations")]


class FormRow(Result):
    """One way in which the images were purified."""

    form: Text
    """The version or preset as the user named it."""
    flip_rate: Share | None
    """Answers that it changes; null without images."""


class AuditVerdict(Result):
    """What ``zipbatch audit --json`` prints."""

    victim: Text
    """The victim as the user named it."""
    data: Text
    """The data as the user named it."""
    forms: list[FormRow]
    """The ways in which the images were purified, the weakest first."""
    images: Images
    """Images that the victim was asked about."""
    quarantined: Images
    """More images that some version holds in quarantine."""
    verdict: Finding
    """What the answers say."""
    target: Text | None
    """The class that is taken for the attacker's target; null where none is."""
    target_index: Annotated[int, unit("class index")] | None
    """Its index among the victim's classes."""
    suspects: Images
    """Images that leave the target class, or the one that they are driven to, when they are purified."""
    triggered: Annotated[float, unit("images")]
    """Estimated number of images with the trigger."""
    deviations: Deviations
    """By how much a class stands out at most."""
    deviations_needed: Deviations
    """By how much it has to."""
    false_alarms: Share
    """Samples of clean images, at most, in which a class is accused."""
    least_found: Images | None
    """So many images with the trigger would have been found; null where a target was."""
    share: Share
    """Images with the trigger that must not be missed for nothing to be found."""
    flip_rate: Share | None
    """Answers that the last form changes; null without images."""
    driven: Text | None = None
    """A class that stands out, but of whose images the victim is not sure: something drives them there."""
    sureness: Share | None = None
    """Pairs, of an image that flees the class which stands out and of another one, in which the victim is surer of the
    first; null where no class stands out."""
    sureness_needed: Share = 0.0
    """So many there are at least where the victim is backdoored."""
    answers: Answers = 0
    """On all images in all forms."""
    reused: Answers = 0
    """Of them, those that were kept from earlier audits."""
    asked_twice: Images = 0
    """Images that a victim which may change was asked about twice."""
    changed: Share | None = None
    """Of them, those that got another answer the second time; null where none was."""


class ImageRow(Result):
    """One image of an audit, as ``zipbatch audit --per-image`` writes it."""

    key: Text
    """The image's key."""
    shard: Text
    """The shard that it is in."""
    score: Annotated[float, unit("0 to 1")]
    """How much it looks triggered: of what its class loses, the share that drift does not explain."""
    before: Text
    """The answer as it came, a class."""
    after: Text
    """The answer after the last purifier."""
    moved: Annotated[int, unit("purified forms")]
    """In how many forms the answer is another one."""
    suspect: bool
    """Whether it was answered with the target class and leaves it in half of the forms or more."""


class ImageAnswer(Result):
    """One image as ``zipbatch evaluate --per-image`` writes it: a victim's answers, before and after one version."""

    victim: Text
    """Whose answers they are."""
    version: Text | None
    """The purified version; null where none was evaluated."""
    split: Text
    """The image's split."""
    shard: Text
    """The shard that it is in."""
    key: Text
    """The image's key."""
    true_class: Text | None
    """What it shows; null where nobody knows."""
    before: Text
    """The answer as it came, a class."""
    after: Text | None
    """The answer on its purified form; null where there is none."""
