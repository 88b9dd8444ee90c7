"""OpenAI's checkpoints: told from their keys, converted exactly, and their kin refused by what they are."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from tests.checkpoints.guided_restated import Settings, State, forward, random_state
from tests.checkpoints.test_prior import Evil
from zipbatch.atomic import sha256_file
from zipbatch.checkpoints import load_prior, open_prior, prior_tensors
from zipbatch.checkpoints.guided import GuidedUNet, guided_unet
from zipbatch.checkpoints.prior import alpha_bar_of
from zipbatch.errors import UsageError

FULL = Settings()
SMALL = Settings(channels=64, multiples=(1, 2, 3, 4), blocks=1, attention=(1, 3))  # two heads and four


def images(size: int, count: int = 2) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def write(path: Path, state: State) -> Path:
    torch.save(state, path)
    return path


def apart(a: Tensor, b: Tensor) -> float:
    """The largest difference, in units of b's own scale."""
    return float((a - b).abs().max() / b.abs().max())


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(SMALL)


@pytest.fixture(scope="module")
def file(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("guided") / "small.pt", state)


# ---- what it computes


def test_outputs_equal_the_restated_network(file: Path, state: State):
    x, t = images(32, 3), torch.tensor([0, 37, 999])
    prior = load_prior(open_prior(file))
    with torch.inference_mode():
        expected = forward(state, SMALL, x, t)
        eps = prior(x, t)
    assert expected.shape == (3, 6, 32, 32)
    assert apart(eps, expected[:, :3]) < 1e-5
    assert apart(eps, expected[:, 3:]) > 0.1  # the learned sigma is another picture


@pytest.mark.parametrize(
    ("settings", "size", "blocks"),
    [
        (Settings(channels=32, multiples=(1, 1, 2, 2, 4, 4), blocks=1, attention=(4, 5)), 256, 1),
        (Settings(channels=32, multiples=(1, 1, 2, 2, 4, 4), blocks=2, attention=(3, 4, 5), out=3), 256, 2),
        (Settings(channels=64, multiples=(1, 1, 2, 3, 4), blocks=1, attention=(2, 3, 4)), 128, 1),
        (Settings(channels=32, multiples=(1, 2, 3, 4), blocks=3, attention=()), 64, 3),
    ],
)
def test_the_network_is_told_from_its_keys(tmp_path: Path, settings: Settings, size: int, blocks: int):
    state = random_state(settings, seed=3)
    opened = open_prior(write(tmp_path / "x.pt", state))
    assert (opened.image_size, opened.training_steps) == (size, 1000)
    assert opened.unet_config["layers_per_block"] == blocks
    assert opened.unet_config["out_channels"] == settings.out
    x, t = images(32, 1), torch.tensor([500])
    with torch.inference_mode():
        assert apart(load_prior(opened)(x, t), forward(state, settings, x, t)[:, :3]) < 1e-4


@pytest.mark.slow
def test_every_tensor_counts(state: State):
    """The comparison would see any tensor that the conversion takes from elsewhere, or in another order."""
    x, t = images(16, 1), torch.tensor([500])
    with torch.inference_mode():
        expected = forward(state, SMALL, x, t)
        for name in state:
            changed = forward({**state, name: state[name].roll(1, dims=0)}, SMALL, x, t)
            assert apart(changed, expected) > 1e-3, name
    assert all(bool((tensor != 0).all()) for tensor in state.values())


def test_schedule_is_the_published_one(file: Path):
    import numpy as np

    expected = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
    np.testing.assert_allclose(alpha_bar_of(open_prior(file)), expected, rtol=1e-4)


def test_the_published_model_in_numbers():
    """552.8 M parameters in 566 tensors, 2.24 TFLOP a forward pass at 256 px; counted without computing any."""
    from diffusers import UNet2DModel

    with torch.device("meta"):
        unet = UNet2DModel(**published().config).eval()
        counter = FlopCounterMode(display=False)
        with counter, torch.inference_mode():
            out = unet(torch.empty(1, 3, 256, 256), torch.empty(1), return_dict=False)[0]
    assert out.shape == (1, 6, 256, 256)
    assert sum(p.numel() for p in unet.parameters()) == 552_814_086
    sources = published().sources()
    tensors = {f"{sources[module]}.{leaf}" for module, leaf in (k.rsplit(".", 1) for k in unet.state_dict())}
    assert len(tensors) == 566
    assert counter.get_total_flops() == pytest.approx(2.24e12, rel=0.005)


def published() -> GuidedUNet:
    return GuidedUNet(
        image_size=256,
        widths=(256, 256, 512, 512, 1024, 1024),
        blocks=2,
        attention=(False, False, False, True, True, True),
        out_channels=6,
    )


def test_the_published_model_is_told_from_its_keys():
    with torch.device("meta"):
        shapes = {key: tensor.shape for key, tensor in random_state(FULL).items()}
    assert len(shapes) == 566
    assert guided_unet(shapes, where=Path("x.pt")) == published()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_full_size_outputs_equal_the_restated_network(tmp_path: Path):
    state = random_state(FULL)
    assert len(state) == 566
    assert sum(tensor.numel() for tensor in state.values()) == 552_814_086
    assert all(bool((tensor != 0).any()) for tensor in state.values())
    x, t = images(256, 1), torch.tensor([500])
    with torch.inference_mode():
        expected = forward(state, FULL, x, t)
    file = write(tmp_path / "256x256_diffusion_uncond.pt", state)
    try:
        del state
        prior = load_prior(open_prior(file))
        with torch.inference_mode():
            eps = prior(x, 500)
    finally:
        file.unlink()
    print(f"scale {expected[:, :3].abs().max():.3f}, apart {apart(eps, expected[:, :3]):.2e}")  # noqa: T201
    assert apart(eps, expected[:, :3]) < 1e-4


# ---- what else it does


def test_stored_precision_is_kept_for_conversion_and_raised_for_work(tmp_path: Path, state: State):
    opened = open_prior(write(tmp_path / "half.pt", {key: tensor.half() for key, tensor in state.items()}))
    assert {tensor.dtype for tensor in prior_tensors(opened).values()} == {torch.float16}
    loaded = load_prior(opened)
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training


def test_weights_outlive_the_file(tmp_path: Path, state: State):
    file = write(tmp_path / "x.pt", state)
    prior = load_prior(open_prior(file))
    before = {key: tensor.clone() for key, tensor in prior.state_dict().items()}
    with file.open("r+b") as stream:
        stream.write(b"\xff" * file.stat().st_size)
    assert all(torch.equal(before[key], tensor) for key, tensor in prior.state_dict().items())


def test_the_digest_is_of_the_file(tmp_path: Path, file: Path, state: State):
    digest = open_prior(file).digest
    twin = tmp_path / "elsewhere.pt"
    twin.write_bytes(file.read_bytes())
    assert open_prior(twin).digest == digest
    changed = write(tmp_path / "small.pt", {**state, "out.2.bias": state["out.2.bias"] + 1e-3})
    assert sha256_file(changed) != sha256_file(file)
    assert open_prior(changed).digest != digest


def test_files_of_old_torch_are_read(tmp_path: Path, file: Path, state: State):
    old = tmp_path / "old.pt"
    torch.save(state, old, _use_new_zipfile_serialization=False)
    ours, theirs = (prior_tensors(open_prior(path)) for path in (old, file))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


# ---- what it refuses


def refused(path: Path, state: State, *parts: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_prior(open_prior(write(path / "bad.pt", state)))
    for part in ("bad.pt", *parts):
        assert part in str(caught.value)


def test_every_unfit_key_is_named_as_the_file_has_it(tmp_path: Path, state: State):
    gone = [
        "input_blocks.3.0.skip_connection.weight",
        "input_blocks.3.1.qkv.bias",
        "middle_block.1.qkv.weight",
        "out.0.bias",
        "time_embed.2.weight",
    ]
    unfit = {key: tensor for key, tensor in state.items() if key not in gone}
    unfit["middle_block.2.out_layers.3.bias"] = torch.zeros(7)
    unfit["middle_block.1.proj_out.weight"] = unfit["middle_block.1.proj_out.weight"][..., 0]
    strangers = {f"stranger.{i}": torch.zeros(1) for i in range(4)}
    refused(
        tmp_path,
        {**unfit, **strangers},
        f"5 missing: {', '.join(gone)}\n",
        f"4 unexpected: {', '.join(strangers)}\n",
        "2 of another shape: ",
        "middle_block.1.proj_out.weight is (256, 256), it must be (256, 256, 1)",
        "middle_block.2.out_layers.3.bias is (7,), it must be (256,)",
    )


def test_a_missing_first_block_is_named(tmp_path: Path, state: State):
    key = "input_blocks.1.0.out_layers.3.weight"
    refused(tmp_path, {k: v for k, v in state.items() if k != key}, f"1 missing: {key}")


def wide_input(state: State) -> State:
    return {**state, "input_blocks.0.0.weight": torch.zeros(64, 6, 3, 3)}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda s: {**s, "label_emb.weight": torch.zeros(1000, 128)}, "is class-conditional"),
        (wide_input, "is an upsampler"),
        (lambda s: wide_input({**s, "label_emb.weight": torch.zeros(1000, 128)}), "is an upsampler"),
        (lambda s: {k: v for k, v in s.items() if "output_blocks" not in k}, "is a classifier"),
        (lambda s: {**s, "input_blocks.0.0.weight": torch.zeros(64, 1, 3, 3)}, "takes 1 channels, no RGB"),
        (lambda s: {**s, "input_blocks.2.0.op.weight": torch.zeros(32, 32, 3, 3)}, "resamples by convolutions"),
        (lambda s: {**s, "time_embed.0.weight": torch.zeros(256, 128)}, "as networks for 512 px do"),
        (lambda s: {**s, "out.2.weight": torch.zeros(12, 32, 3, 3)}, "3 rows, or 6 with a learned sigma"),
        (lambda s: {k: v for k, v in s.items() if "input_blocks.7" not in k}, "levels are not those"),
        (lambda s: {"conv_in.weight": s["out.2.weight"]}, "no input_blocks.0.0.weight of four dimensions"),
        (lambda s: {}, "no input_blocks.0.0.weight"),
    ],
)
def test_kin_are_refused_by_what_they_are(tmp_path: Path, state: State, change: Callable[[State], State], reason: str):
    refused(tmp_path, change(state), reason)


def test_widths_without_heads_or_groups(tmp_path: Path):
    narrow = Settings(channels=32, multiples=(1, 2, 3, 4), blocks=1, attention=(0,))
    refused(tmp_path, random_state(narrow), "make no heads of 64")


def test_a_malicious_file_runs_nothing(tmp_path: Path, state: State):
    marker = tmp_path / "marker"
    torch.save({**state, "x": Evil(marker)}, tmp_path / "evil.pt")
    with pytest.raises(UsageError, match=re.escape("nothing was run")):
        open_prior(tmp_path / "evil.pt")
    assert not marker.exists()
