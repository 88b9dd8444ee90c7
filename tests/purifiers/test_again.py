"""What is not finite in few bits is done again in float32, and nothing else is."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from tests.diffusion.test_sampler import ALPHA_BAR
from tests.purifiers.test_zip import keys, pictures
from zipbatch.diffusion import Prior
from zipbatch.purifiers import DiffusionSampler, Purifier, Resources, Zip
from zipbatch.purifiers.again import sure
from zipbatch.purifiers.base import NonFiniteError
from zipbatch.purifiers.chain import Chain, ChainSettings
from zipbatch.purifiers.settings import Precision, ZipSettings

CPU = torch.device("cpu")
SIZE = 16
SETTINGS = ZipSettings(transforms=("blur:1",), steps=10, start_step=3, eta=0.5)


class Overflowing(nn.Module):
    """Half of what it sees; of a bright canvas infinite, unless its weights are of a type that is wide enough."""

    def __init__(self, wide: set[torch.dtype]) -> None:
        super().__init__()
        self.share, self.wide = nn.Parameter(torch.tensor(0.5)), wide

    def forward(self, sample: Tensor, timestep: Tensor, return_dict: bool = True) -> tuple[Tensor]:
        out = sample * self.share
        if sample.dtype not in self.wide:
            out = out.masked_fill((sample.flatten(1).amax(dim=1) > 2).view(-1, 1, 1, 1), torch.inf)
        return (out,)


def prior(size: int, *wide: torch.dtype) -> Prior:
    """A prior that overflows in other types."""
    unet = Overflowing(set(wide))
    return Prior(unet, in_channels=3, out_channels=3, sample_size=size, alpha_bar=ALPHA_BAR)


def shown(*bright: int, count: int = 6) -> Tensor:
    """Pictures that are dark, but for some that are white."""
    images = pictures(count) // 4
    images[list(bright)] = 255
    return images


def purifier(of: Prior, precision: Precision, counted: list[int]) -> Purifier:
    return sure(Zip, SETTINGS, Resources(device=CPU, prior=of, precision=precision, done_again=counted.append))


@pytest.fixture(autouse=True)
def _bright_overflows(monkeypatch: pytest.MonkeyPatch) -> None:
    """White in the state is beyond 2, dark is not."""
    monkeypatch.setattr(
        "zipbatch.purifiers.diffusion_sampler.from_u8", lambda images, _: images.float() / 127.5 * 2 - 1
    )
    monkeypatch.setattr(
        "zipbatch.purifiers.diffusion_sampler.standard_normal",
        lambda streams, *, step, shape: torch.zeros(len(streams), *shape),
    )


@pytest.mark.parametrize("precision", ["float16", "bfloat16"])
@pytest.mark.parametrize(("canvas", "again"), [(SIZE, [1, 4]), (2 * SIZE, [0, 1, 2, 3, 4, 5])])
def test_only_what_overflows_is_done_again(precision: Precision, canvas: int, again: list[int]):
    """Alone, or with its canvas: the others are what they would be without it."""
    counted: list[int] = []
    made = purifier(prior(canvas, torch.float32), precision, counted)(shown(1, 4), keys(6))
    exact = purifier(prior(canvas, torch.float32), "float32", [])(shown(1, 4), keys(6))
    rough = purifier(prior(canvas, torch.float32, torch.bfloat16, torch.float16), precision, [])(shown(1, 4), keys(6))
    assert counted == [len(again)]
    others = [row for row in range(6) if row not in again]
    assert torch.equal(made[again], exact[again])
    assert torch.equal(made[others], rough[others])


def test_one_canvas_of_two(monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    made = purifier(prior(2 * SIZE, torch.float32), "bfloat16", counted)(shown(5), keys(6))
    assert counted == [2]
    assert torch.equal(made[4:], purifier(prior(2 * SIZE, torch.float32), "float32", [])(shown(5), keys(6))[4:])


def test_what_float32_cannot_do_either_is_told_by_its_key():
    counted: list[int] = []
    with pytest.raises(NonFiniteError) as caught:
        purifier(prior(SIZE), "bfloat16", counted)(shown(3), keys(6))
    assert caught.value.key == "test_0003"
    assert not counted


def test_each_step_of_a_chain_by_itself():
    counted: list[int] = []
    settings = ChainSettings.model_validate(
        {"steps": [{"method": "bitdepth", "bits": 8}, {"method": "zip", "draws": 2, **SETTINGS.model_dump()}]}
    )
    resources = Resources(device=CPU, prior=prior(SIZE, torch.float32), precision="bfloat16", done_again=counted.append)
    Chain(settings, resources)(shown(2), keys(6))
    assert counted == [1, 1]


def test_the_weights_are_cast_once():
    of = prior(SIZE, torch.float32)
    first, second = (of.cast(CPU, torch.bfloat16) for _ in range(2))
    assert first is second
    assert first is not of
    assert {parameter.dtype for parameter in first.parameters()} == {torch.bfloat16}
    assert of.cast(CPU, torch.float32) is of


def test_an_error_that_names_no_rows_does_the_batch_again(monkeypatch: pytest.MonkeyPatch):
    of, counted = prior(SIZE, torch.float32), list[int]()
    made = purifier(of, "bfloat16", counted)
    paint = DiffusionSampler.paint

    def unsure(self: DiffusionSampler, images: Tensor, names: Sequence[str], sample: object) -> Tensor:
        if self._precision == "bfloat16":
            raise NonFiniteError(names[0])
        return paint(self, images, names, sample)  # type: ignore[arg-type]

    monkeypatch.setattr(DiffusionSampler, "paint", unsure)
    assert made(shown(1), keys(6)).shape == (6, 3, SIZE, SIZE)
    assert counted == [6]
