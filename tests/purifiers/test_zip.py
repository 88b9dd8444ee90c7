"""ZIP with a real, tiny, untrained network: what must hold whatever the prior has learned."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.diffusion.test_prior import turned
from tests.diffusion.test_sampler import ALPHA_BAR, eps_of, sample_by_hand
from tests.making import picture, write_prior
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.diffusion import Prior, noise_streams, parse_projector, standard_normal
from zipbatch.diffusion.prior import Prediction
from zipbatch.pixels import from_u8, to_u8
from zipbatch.purifiers import PURIFIERS, Resources, Zip
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.purifiers.settings import ZipSettings

CPU = torch.device("cpu")
SIZE = 16
ALL_GUIDANCE = 1e9  # alpha_bar ** 1e9 is 0 at every step: the projection of the result is the image's own


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """These tensors are so small that threads would spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(prior: Path) -> Prior:
    """A prior of the images' own size."""
    return load_prior(open_prior(prior))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Prior:
    """A prior of 32 px: four images of 16 px a canvas."""
    return load_prior(open_prior(write_prior(tmp_path_factory.mktemp("priors") / "large", image_size=32, seed=3)))


def make_zip(prior: Prior, *, seed: int = 0, precision: str = "float32", **settings: object) -> Zip:
    given = {"steps": 4, "start_step": 300, **settings}
    return Zip(ZipSettings(**given), Resources(device=CPU, prior=prior, seed=seed, precision=precision))  # type: ignore[arg-type]


def pictures(count: int) -> Tensor:
    return torch.from_numpy(np.stack([picture(i, SIZE) for i in range(count)])).permute(0, 3, 1, 2).contiguous()


def keys(count: int) -> list[str]:
    return [f"test_{i:04d}" for i in range(count)]


def apart(a: Tensor, b: Tensor) -> int:
    """The largest difference in levels."""
    return int((a.int() - b.int()).abs().max())


def test_it_is_registered():
    assert PURIFIERS["zip"] is Zip
    assert Zip.needs_prior


def test_defaults_are_those_of_the_default_preset():
    assert ZipSettings().model_dump() == {
        "transforms": ("blur:2", "blur:1"),
        "guidance_exponent": 10.0,
        "steps": 20,
        "eta": 1.0,
        "start_step": 300,
    }


@pytest.mark.parametrize("start_step", [1000, 300])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_full_guidance_by_the_identity_returns_the_image(tiny: Prior, start_step: int, eta: float):
    images = pictures(3)
    images[0, :, :4], images[0, :, 4:8] = 0, 255
    zipped = make_zip(tiny, transforms=["blur:1"], guidance_exponent=ALL_GUIDANCE, start_step=start_step, eta=eta)
    purified = zipped(images, keys(3))
    assert purified.dtype == torch.uint8
    assert apart(purified, images) <= 1


def test_full_guidance_by_blur_keeps_block_means(tiny: Prior):
    images = pictures(4) // 4 + 96  # 96..159: what the prior paints around the means is not clipped
    zipped = make_zip(tiny, transforms=["blur:4"], guidance_exponent=ALL_GUIDANCE, steps=20, start_step=60)
    purified = zipped(images, keys(4))
    assert purified.min() > 0
    assert purified.max() < 255
    before, after = (x.double().view(4, 3, 4, 4, 4, 4).mean(dim=(3, 5)) for x in (images, purified))
    assert (before - after).abs().max() <= 1
    assert apart(purified, images) > 4  # inside the blocks it is another picture


def test_full_guidance_by_gray_keeps_channel_means(tiny: Prior):
    images = pictures(4) // 4 + 96
    zipped = make_zip(tiny, transforms=["gray"], guidance_exponent=ALL_GUIDANCE, steps=20, start_step=60)
    purified = zipped(images, keys(4))
    assert purified.min() > 0
    assert purified.max() < 255
    assert (images.double().mean(dim=1) - purified.double().mean(dim=1)).abs().max() <= 1
    assert apart(purified, images) > 4


class EpsUNet(nn.Module):
    """The made-up network of the sampler's tests."""

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        return (torch.from_numpy(eps_of(sample, int(timestep[0]))).float(),)


@pytest.mark.parametrize(
    "changed", [{}, {"eta": 0.0}, {"steps": 7}, {"start_step": 1000}, {"k": 40.0}, {"transforms": ["blur:4", "blur:1"]}]
)
def test_every_setting_reaches_the_update(changed: dict[str, object]):
    """Uint8 to uint8, against DESIGN's update written out in numpy."""
    settings = {"transforms": ["blur:1", "gray"], "k": 10.0, "steps": 20, "start_step": 300, "eta": 1.0, **changed}
    prior = Prior(EpsUNet(), in_channels=3, out_channels=3, sample_size=SIZE, alpha_bar=ALPHA_BAR)
    images, names = pictures(4), keys(4)
    streams = noise_streams(8, names)
    expected = sample_by_hand(
        images.numpy() / 127.5 - 1,
        noise=lambda counter: standard_normal(streams, step=counter, shape=(3, SIZE, SIZE)).double().numpy(),
        **settings,  # type: ignore[arg-type]
    )
    k = settings.pop("k")
    purified = make_zip(prior, seed=8, guidance_exponent=k, **settings)(images, names)
    levels = ((expected + 1) * 127.5).clip(0, 255)
    assert ((levels > 0) & (levels < 255)).mean() > 0.3
    assert np.abs(purified.numpy() - levels).max() <= 0.51


def test_guidance_exponent_pulls_to_the_image(tiny: Prior):
    """A larger exponent leaves less to the prior."""
    images = pictures(4)
    distances = [
        (make_zip(tiny, transforms=["blur:1"], guidance_exponent=k)(images, keys(4)).double() - images).abs().mean()
        for k in (0.1, 1.0, 1000.0)
    ]
    assert distances[0] > distances[1] > distances[2]


def test_rows_do_not_depend_on_each_other(tiny: Prior):
    images, names = pictures(5), keys(5)
    zipped = make_zip(tiny)
    together = zipped(images, names)
    order = [3, 0, 4, 1, 2]
    shuffled = zipped(images[order], [names[i] for i in order])
    assert apart(shuffled, together[order]) <= 1
    for i in range(5):
        assert apart(zipped(images[i : i + 1], names[i : i + 1]), together[i : i + 1]) <= 1
    others = images.clone()
    others[1:] = 255 - others[1:]
    assert apart(zipped(others, names)[:1], together[:1]) <= 1


def test_key_and_not_place_decides_the_noise(tiny: Prior):
    """The same picture under another key is painted otherwise."""
    images = pictures(1).expand(2, -1, -1, -1)
    purified = make_zip(tiny)(images, ["a", "b"])
    assert apart(purified[:1], purified[1:]) > 1


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_same_seed_same_bytes(tiny: Prior, eta: float):
    images, names = pictures(3), keys(3)
    first = make_zip(tiny, seed=5, eta=eta)(images, names)
    torch.manual_seed(123)
    assert torch.equal(first, make_zip(tiny, seed=5, eta=eta)(images, names))
    assert not torch.equal(first, make_zip(tiny, seed=6, eta=eta)(images, names))


def test_argument_and_global_generator_stay(tiny: Prior):
    images = pictures(2)
    before, state = images.clone(), torch.get_rng_state()
    make_zip(tiny)(images, keys(2))
    assert torch.equal(images, before)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("count", range(1, 10))
def test_tiled_images_come_back_in_order(large: Prior, count: int):
    """Four 16 px images a canvas, any number of them, one of them black."""
    images = pictures(count)
    images[count // 2] = 0
    zipped = make_zip(large, transforms=["blur:1"], guidance_exponent=ALL_GUIDANCE, steps=2)
    purified = zipped(images, keys(count))
    assert purified.shape == images.shape
    assert apart(purified, images) <= 1


def test_canvases_do_not_depend_on_each_other(large: Prior):
    images, names = pictures(9), keys(9)
    zipped = make_zip(large)
    together = zipped(images, names)
    for first, last in ((0, 4), (4, 8), (8, 9)):
        assert apart(zipped(images[first:last], names[first:last]), together[first:last]) <= 1
    assert apart(zipped(images[1:5], names[1:5]), together[1:5]) > 1  # neighbours on a canvas do


def test_bfloat16_is_close_but_not_equal(tiny: Prior):
    images, names = pictures(2), keys(2)
    exact, rough = (make_zip(tiny, precision=precision)(images, names) for precision in ("float32", "bfloat16"))
    assert 0 < (exact.double() - rough.double()).abs().mean() < 4


@pytest.mark.parametrize(
    ("transforms", "height", "width", "prior_size", "expected"),
    [
        (["blur:2", "gray"], 16, 16, 16, 1),
        (["blur:2", "gray"], 16, 16, 32, 4),
        (["blur:16"], 32, 32, 256, 64),
        (["gray"], 8, 16, 32, 8),
    ],
)
def test_images_a_row(transforms: list[str], height: int, width: int, prior_size: int, expected: int):
    assert Zip.images_per_row(ZipSettings(transforms=transforms), height, width, prior_size=prior_size) == expected


@pytest.mark.parametrize(
    ("transforms", "height", "width", "message"),
    [
        (["gray"], 12, 16, "16x12 pixels neither equals nor tiles the prior's 32x32"),
        (["gray"], 64, 64, "64x64 pixels neither equals nor tiles the prior's 32x32"),
        (["gray", "blur:3"], 16, 16, "blur:3: 3 does not divide the image's 16 x 16 pixels"),
        (["blur:32"], 16, 16, "blur:32: 32 does not divide"),  # it would reach into a neighbour on the canvas
    ],
)
def test_sizes_that_do_not_fit(transforms: list[str], height: int, width: int, message: str):
    with pytest.raises(ValueError, match=message):
        Zip.images_per_row(ZipSettings(transforms=transforms), height, width, prior_size=32)


@pytest.mark.parametrize(
    "settings",
    [
        {"transforms": []},
        {"transforms": ["sharpen"]},
        {"guidance_exponent": 0},
        {"guidance_exponent": float("nan")},
        {"steps": 0},
        {"eta": 1.5},
        {"eta": -0.1},
        {"start_step": 0},
        {"stepz": 3},
    ],
)
def test_settings_outside_their_range(settings: dict[str, object]):
    with pytest.raises(ValueError, match="validation error"):
        ZipSettings(**settings)  # type: ignore[arg-type]


def test_more_steps_than_the_prior_has(tiny: Prior):
    with pytest.raises(ValueError, match=r"steps must be in \[1, 1000\], got 1001"):
        make_zip(tiny, steps=1001)


def test_no_prior():
    with pytest.raises(ValueError, match="needs a prior"):
        Zip(ZipSettings(), Resources(device=CPU))


class BrokenUNet(nn.Module):
    """Predicts zeros, but a bad value in one row of the batch."""

    def __init__(self, row: int, value: float) -> None:
        super().__init__()
        self.row, self.value = row, value

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        eps = torch.zeros_like(sample)
        eps[self.row, 1, 2, 3] = self.value
        return (eps,)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(("canvas", "row", "key"), [(SIZE, 2, "test_0002"), (2 * SIZE, 1, "test_0004")])
def test_what_is_not_finite_is_no_picture(value: float, canvas: int, row: int, key: str):
    """The key of the image that holds it is named; on a canvas of four, row 1 begins with the fifth image."""
    prior = Prior(
        BrokenUNet(row, value),
        in_channels=3,
        out_channels=3,
        sample_size=canvas,
        alpha_bar=ALPHA_BAR,
    )
    with pytest.raises(NonFiniteError, match="not finite") as caught:
        make_zip(prior, transforms=["blur:1"])(pictures(6), keys(6))
    assert caught.value.key == key


@pytest.mark.parametrize("predicts", ["v_prediction", "sample"])
def test_one_network_in_three_words_paints_one_picture(tiny: Prior, predicts: Prediction):
    """A network of epsilon, the same of v, the same of the clean image: within a level, from pure noise too."""
    for start in (300, 1000):
        painted = make_zip(tiny, start_step=start)(pictures(3), keys(3))
        assert apart(make_zip(turned(tiny, predicts), start_step=start)(pictures(3), keys(3)), painted) <= 1


@pytest.mark.parametrize("transform", ["dct:4", "blur:2@key", "blur:3@mean", "gauss:1"])
def test_a_transform_of_whole_images_stays_within_an_image(
    large: Prior, transform: str, monkeypatch: pytest.MonkeyPatch
):
    """Four of them share a canvas, and none sees its neighbours."""
    images, names = pictures(6), keys(6)
    monkeypatch.setattr("zipbatch.purifiers.diffusion_sampler.guided_sample", lambda _, y, project, **__: project(y))
    made = make_zip(large, transforms=(transform,), seed=2)(images, names)
    own = parse_projector(transform).with_keys(2, names).apply(from_u8(images, "model"))
    assert torch.equal(made, to_u8(own, "model"))


def test_a_place_drawn_by_key_is_of_the_key_and_the_seed(tiny: Prior):
    images, settings = pictures(1).repeat(6, 1, 1, 1), {"transforms": ("blur:4@key",)}
    purify = make_zip(tiny, seed=1, **settings)
    made = purify(images, keys(6))
    assert apart(purify(images[3:5], keys(6)[3:5]), made[3:5]) <= 1
    assert not torch.equal(make_zip(tiny, **settings)(images, keys(6)), made)
