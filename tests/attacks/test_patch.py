"""A picture of one's own as the trigger: where it lies, how it is mixed, what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from tests.attacks.stamping import stamp
from zipbatch.attacks.patch import Patch, PatchSettings, Pattern, PatternSettings


def rgba(height: int, width: int, *, seed: int = 0, opacity: int = 255) -> np.ndarray:
    picture = np.random.default_rng(seed).integers(0, 256, (height, width, 4)).astype(np.uint8)
    picture[:, :, 3] = opacity
    return picture


def images(count: int = 3, size: int = 32) -> np.ndarray:
    return np.random.default_rng(9).integers(0, 256, (count, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        (-1, -1, slice(29, 32), slice(28, 32)),  # flush with the corner
        (-4, -4, slice(26, 29), slice(25, 29)),  # three pixels are left
        (0, 0, slice(0, 3), slice(0, 4)),
        (2, -2, slice(2, 5), slice(27, 31)),
    ],
)
def test_it_lies_where_it_is_put(row: int, column: int, rows: slice, columns: slice):
    attack, picture, clean = Patch(PatchSettings(row=row, column=column)), rgba(3, 4), images()
    trigger = attack.trigger_from(picture, 32)
    before = clean.copy()
    stamped = stamp(attack, clean, trigger)
    assert np.array_equal(clean, before)
    assert np.array_equal(stamped[:, rows, columns], np.broadcast_to(picture[:, :, :3], (3, 3, 4, 3)))
    stamped[:, rows, columns] = clean[:, rows, columns]
    assert np.array_equal(stamped, clean)


def test_transparent_pixels_show_the_image_and_alpha_mixes():
    picture, clean = rgba(4, 4), images()
    picture[0, 0, 3], picture[1, 1, 3] = 0, 51
    attack = Patch(PatchSettings(row=0, column=0, alpha=0.5))
    stamped = stamp(attack, clean, attack.trigger_from(picture, 32)).astype(np.float64)
    share = (picture[:, :, 3:] / 255 * 0.5)[None]
    expected = (1 - share) * clean[:, :4, :4] + share * picture[None, :, :, :3]
    assert np.abs(stamped[:, :4, :4] - expected).max() <= 0.5 + 1e-3
    assert np.array_equal(stamped[:, 0, 0], clean[:, 0, 0])


def test_a_width_resizes_it_and_keeps_its_shape():
    trigger = Patch(PatchSettings(width=8)).trigger_from(rgba(10, 20), 32)
    assert np.argwhere(trigger["opacity"][:, :, 0] > 0).tolist()[0] == [28, 24]
    assert (trigger["opacity"] > 0).sum() == 4 * 8


def test_a_pattern_covers_all():
    attack, clean = Pattern(PatternSettings(alpha=0.25)), images()
    flat = np.full((5, 7, 4), 255, np.uint8)
    stamped = stamp(attack, clean, attack.trigger_from(flat, 32)).astype(np.float64)
    assert np.abs(stamped - (0.75 * clean + 0.25 * 255)).max() <= 0.5 + 1e-3


@pytest.mark.parametrize(
    ("attack", "picture", "words"),
    [
        (Patch(), rgba(33, 3), "does not lie within"),
        (Patch(PatchSettings(row=30)), rgba(3, 3), "does not lie within"),
        (Patch(PatchSettings(row=-31)), rgba(3, 3), "does not lie within"),
        (Patch(), rgba(3, 3, opacity=0), "transparent all over"),
        (Pattern(), rgba(3, 3, opacity=0), "transparent all over"),
    ],
)
def test_pictures_that_do_not_do(attack: Patch | Pattern, picture: np.ndarray, words: str):
    with pytest.raises(ValueError, match=words):
        attack.trigger_from(picture, 32)


@pytest.mark.parametrize("values", [{"alpha": 0}, {"alpha": 1.1}, {"alpha": float("nan")}, {"width": -1}])
def test_parameters_that_cannot_be(values: dict[str, float]):
    with pytest.raises(ValueError, match="Input should be"):
        Patch(PatchSettings(**values))  # type: ignore[arg-type]


def test_without_a_picture_there_is_no_trigger():
    for attack in (Patch(), Pattern()):
        with pytest.raises(ValueError, match="‹trigger_image"):
            attack.make_trigger(32, seed=0)
