"""What every victim is to the stages, be it a network, an HTTP endpoint or a function: images in, class scores out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

U8 = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.floating[Any]]


class Classifier(Protocol):
    """A black box that is ready to be asked, from several threads at once."""

    def classify(self, images: U8) -> npt.NDArray[Any]:
        """Class scores [N, classes], the higher the likelier, of RGB images, uint8 [N, H, W, 3].

        A black box may answer with anything: ``checked_scores`` tells whether these are scores.

        Raises:
            DataError: it cannot be reached, failed, or answered with no array; names the victim.
        """
        ...


class VictimSource(Protocol):
    """A victim that is not loaded yet: small, picklable, to be loaded by whoever asks it.

    Attributes:
        label: as the user named it.
        name: a short name, for titles and messages.
        num_classes: width of its scores; None while nobody has asked it.
        image_size: side of the square images it takes, pixels; None when it says nothing of it.
    """

    @property
    def label(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def num_classes(self) -> int | None: ...
    @property
    def image_size(self) -> int | None: ...

    def pinned(self) -> VictimSource:
        """The same victim, as far as its files are concerned in the state that they are in now: every worker that loads
        it later, on whatever machine, gets that very one or an error.
        """
        ...

    def knowing(self, *, classes: int) -> VictimSource:
        """The same victim, of which it is known by now how many classes it knows."""
        ...

    def decided_by(self, device: torch.device) -> dict[str, Any] | None:
        """All that decides the answers of the ``pinned`` victim, where it computes on ``device``, as JSON values; None
        where nobody can know: it may answer otherwise tomorrow, and nothing would show it.
        """
        ...

    def load(self, device: torch.device) -> Classifier:
        """Make it ready; ``device`` is for those that compute in this process.

        Raises:
            UsageError: it cannot be loaded; says why.
            DataError: it is not any more what it was ``pinned`` to.
        """
        ...


def checked_scores(scores: npt.ArrayLike, *, images: int, classes: int | None = None) -> Scores:
    """What a victim answered, if these are class scores: float [images, classes], 2 classes or more, no NaN.

    Whole numbers become float64. Infinities are scores: the logarithm of 0 is one. All classes alike cannot have it.

    Args:
        scores: the answer.
        images: how many images were asked about.
        classes: how many classes there must be, None for any number.

    Raises:
        ValueError: another shape or type, or NaN; says which.
    """
    array = np.asarray(scores)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"answered with {array.dtype} values; class scores are real numbers")
    if array.ndim != 2 or len(array) != images:
        raise ValueError(f"answered {images} images with an array of shape {array.shape}; one row an image is needed")
    if array.shape[1] < 2:
        raise ValueError(f"gave {array.shape[1]} score an image; a classifier has one for each of 2 classes or more")
    if classes is not None and array.shape[1] != classes:
        raise ValueError(f"gave {array.shape[1]} scores an image where {classes} are expected")
    floating = array if array.dtype.kind == "f" else array.astype(np.float64)
    if np.isnan(floating).any():
        raise ValueError(f"gave NaN for image {int(np.isnan(floating).any(axis=1).argmax())} of {images}")
    endless = np.isinf(floating).all(axis=1) & (floating == floating[:, :1]).all(axis=1)
    if endless.any():
        raise ValueError(f"gave every class the same infinite score for image {int(endless.argmax())} of {images}")
    return floating


def top1(
    classifier: Classifier,
    images: Tensor,
    *,
    batch_size: int = 128,
    classes: int | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> npt.NDArray[np.int64]:
    """The class with the highest score (the first of equals) of each of uint8 images [N, 3, H, W], int64 [N].

    Args:
        classifier: who is asked.
        images: on the CPU.
        batch_size: images asked about at once.
        classes: how many scores an image must get, None for any number.
        before_batch: called before each batch; may raise to stop.

    Raises:
        DataError: as ``Classifier.classify``.
        ValueError: as ``checked_scores``.
    """
    answers = [np.empty(0, np.int64)]
    for rows in torch.split(images, batch_size):
        before_batch()
        if len(rows):
            scores = classifier.classify(np.ascontiguousarray(rows.permute(0, 2, 3, 1).numpy()))
            answers.append(checked_scores(scores, images=len(rows), classes=classes).argmax(axis=1))
    return np.concatenate(answers)
