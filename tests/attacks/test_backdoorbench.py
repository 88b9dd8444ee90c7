"""BackdoorBench's pixels, where they differ from the other profiles'."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.attacks.stamping import stamp
from zipbatch.attacks import PROFILES, get_attack
from zipbatch.attacks.backdoorbench import BlendedPicture, WhiteCorner, WhiteCornerSettings

PROFILE = PROFILES["backdoorbench"]


def grey(size: int, level: int = 100) -> np.ndarray:
    return np.full((1, size, size, 3), level, np.uint8)


def test_all_of_them_attack_class_0_by_their_own_draw():
    assert {(a.default_target, a.draw, a.variant) for a in PROFILE.values()} == {(0, "choice", "backdoorbench")}
    assert {name: attack.default_poison_rate for name, attack in PROFILE.items()} == {
        "badnets": 0.1,
        "blended": 0.1,
        "wanet": 0.1,
        "sig": 0.1,
        "ftrojan": 0.1,
        "ctrl": 0.05,
        "bpp": 0.1,
        "lf": 0.1,
        "refool": 0.1,
    }


def test_reflections_prevail():
    """The opacity of the image is .4 throughout, here of black under white."""
    attack = PROFILE["refool"]
    trigger = attack.trigger_from_pictures([grey(8, 255)[0]], 8, seed=0)
    stamped = stamp(attack, grey(8, 0).repeat(9, axis=0), trigger, keys=list("abcdefghi"), training=True)
    assert set(stamped.ravel().tolist()) == {round(255 * 0.6 ** (1 / 2.2))}


def test_the_corner_is_white_and_flush():
    attack = get_attack("badnets", profile="backdoorbench")
    stamped = stamp(attack, grey(32), attack.make_trigger(32, seed=3))[0]
    expected = grey(32)[0]
    expected[29:32, 29:32] = 255
    assert np.array_equal(stamped, expected)


def test_the_corner_of_256_px_fades_inwards():
    attack = WhiteCorner()
    stamped = stamp(attack, grey(256, 0), attack.make_trigger(256, seed=0))[0]
    assert (stamped[228:, 228:] > 0).all()
    assert stamped.sum() == stamped[228:, 228:].sum(dtype=np.int64)
    assert (stamped[236:, 236:] == 255).all()
    assert (stamped == 255).all(axis=2).sum() == 20 * 20
    assert (np.diff(stamped[-1, 228:, 0].astype(int)) >= 0).all()


@pytest.mark.parametrize(("patch_size", "limit"), [(0, "greater than or equal to 1"), (33, "less than or equal to 32")])
def test_a_corner_of_no_size_or_more_than_the_mask(patch_size: int, limit: str):
    with pytest.raises(ValueError, match=f"patch_size\n  Input should be {limit}"):
        WhiteCorner(WhiteCornerSettings(patch_size=patch_size))


def test_levels_of_bpp_are_cut():
    attack = PROFILE["bpp"]
    assert sorted(set(attack.make_trigger(32, seed=0)["table"].tolist())) == [0, 36, 72, 109, 145, 182, 218, 255]


@pytest.mark.parametrize("levels", range(2, 256))
def test_cut_levels_are_whole_where_the_formula_is(levels: int):
    table = get_attack("bpp", {"levels": str(levels)}, profile="backdoorbench").make_trigger(8, seed=0)["table"]
    top = levels - 1
    exact = {255 * step // top for step in range(levels)}
    assert set(table.tolist()) <= exact
    assert (table[0], table[255]) == (0, 255)


def test_wanet_cuts_where_the_reference_code_rounds():
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    cut, rounded = PROFILE["wanet"], PROFILES["standard"]["wanet"]
    grids = [attack.make_trigger(32, seed=1)["grid"] for attack in (cut, rounded)]
    assert np.array_equal(*grids)
    lost = stamp(rounded, images, {"grid": grids[0]}).astype(int) - stamp(cut, images, {"grid": grids[0]})
    assert set(np.unique(lost)) == {0, 1}
    assert 0.3 < (lost == 1).mean() < 0.6


def test_a_picture_is_squeezed_to_the_images():
    picture = np.random.default_rng(0).integers(0, 256, (48, 80, 3)).astype(np.uint8)
    rgba = np.concatenate([picture, np.full((48, 80, 1), 255, np.uint8)], axis=2)
    pattern = BlendedPicture().trigger_from(rgba, 32)["pattern"]
    assert np.array_equal(pattern, np.array(Image.fromarray(picture).resize((32, 32), Image.Resampling.BILINEAR)))
    with pytest.raises(ValueError, match="‹trigger_image"):
        BlendedPicture().make_trigger(32, seed=0)
    rgba[0, 0, 3] = 254
    with pytest.raises(ValueError, match="transparent pixels; flatten"):
        BlendedPicture().trigger_from(rgba, 32)
