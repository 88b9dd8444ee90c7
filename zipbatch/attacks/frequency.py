"""Triggers that are single coefficients of a discrete cosine transform."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

POSITIONS = (15, 31)
"""Where FTrojan and CTRL put their trigger: the coefficients (15, 15) and (31, 31)."""


def cosine_basis(size: int) -> npt.NDArray[np.float64]:
    """The matrix [k, i] of the orthonormal DCT-II of ``size`` samples: ``sqrt(2 / n) cos(pi (2 i + 1) k / 2 n)``, row
    0 divided by the root of 2. The transform of X is ``C X Cᵀ``, and ``Cᵀ X C`` is its inverse.
    """
    k, i = np.arange(size)[:, None], np.arange(size)[None, :]
    basis: npt.NDArray[np.float64] = np.sqrt(2 / size) * np.cos(np.pi * (2 * i + 1) * k / (2 * size))
    basis[0] /= np.sqrt(2)
    return basis


def coefficient_pattern(size: int, magnitude: float) -> npt.NDArray[np.float32]:
    """What adding ``magnitude`` to the coefficients at ``POSITIONS`` adds to the pixels, float32 [size, size].

    The transform is linear: transforming an image, adding to coefficients and transforming back adds this one picture
    to every image.

    Raises:
        ValueError: so few samples have no such coefficients.
    """
    if size <= max(POSITIONS):
        raise ValueError(
            f"the trigger sits at frequencies {POSITIONS[0]} and {POSITIONS[1]}, which need images of "
            f"{max(POSITIONS) + 1} px or more, got {size} px"
        )
    waves = cosine_basis(size)[list(POSITIONS)]
    return sum(np.outer(wave, wave) for wave in waves).astype(np.float32) * np.float32(magnitude)  # type: ignore[union-attr]
