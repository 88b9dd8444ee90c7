"""Import OpenAI's checkpoints, or purify with them as they are: the same pictures either way, and refusals in words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints.guided_restated import Settings, State, forward, random_state
from tests.making import files_below, sample, write_prior, write_shard, write_victim, zipbatch
from zipbatch.atomic import sha256_file
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.checkpoints.guided_flags import GuidedFlags
from zipbatch.cli.spelling import flag
from zipbatch.spelling import spelled
from zipbatch.stages.assets import sample_source

SMALL = Settings(channels=64, multiples=(1, 2, 3, 4), blocks=1, attention=(3,))
WEIGHTS = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def state() -> State:
    return random_state(SMALL, seed=5)


@pytest.fixture(scope="module")
def file(state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("guided") / "small.pt"
    torch.save(state, path)
    return path


def imported(file: Path, out: Path, *arguments: object) -> dict:
    ran = zipbatch("import", "prior", file, "--out", out, *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


def test_the_folder_is_the_file(tmp_path: Path, file: Path, state: State):
    from diffusers import DDPMPipeline

    parameters = sum(tensor.numel() for tensor in state.values())
    assert imported(file, tmp_path / "p") == {
        "path": str(tmp_path / "p"),
        "source_sha256": sha256_file(file),
        "image_size": 64,
        "parameters": parameters,
        "dtype": "float32",
        "assumed": {spelled(name, flag): usual for name, usual in GuidedFlags().assumed.items()},
        "reused": False,
    }
    manifest = json.loads((tmp_path / "p" / "manifest.json").read_text())
    assert manifest["source"] == {"file": "small.pt", "sha256": sha256_file(file), "format": "guided-diffusion"}
    x, t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([321])
    ours, direct = load_prior(open_prior(tmp_path / "p")), load_prior(open_prior(file))
    theirs = DDPMPipeline.from_pretrained(tmp_path / "p")  # it is diffusers' own format, for others as well
    with torch.inference_mode():
        expected = forward(state, SMALL, x, t)
        assert torch.equal(ours(x, t), direct(x, t))
        out = theirs.unet.eval()(x, t).sample
        assert torch.equal(out[:, :3], direct(x, t))
        assert float((out - expected).abs().max() / expected.abs().max()) < 1e-5
    assert (theirs.scheduler.config.beta_start, theirs.scheduler.config.beta_end) == (1e-4, 0.02)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16])
def test_precision(tmp_path: Path, file: Path, state: State, stored: torch.dtype):
    torch.save({key: tensor.to(stored) for key, tensor in state.items()}, tmp_path / "x.pt")
    name = str(stored).removeprefix("torch.")
    assert imported(tmp_path / "x.pt", tmp_path / "kept")["dtype"] == name
    assert imported(tmp_path / "x.pt", tmp_path / "half", "--half")["dtype"] == "float16"
    for folder, dtype in (("kept", stored), ("half", torch.float16)):
        assert {tensor.dtype for tensor in load_file(tmp_path / folder / WEIGHTS).values()} == {dtype}


def test_a_damaged_folder_is_made_whole_again(tmp_path: Path, file: Path):
    first = imported(file, tmp_path / "p")
    before = files_below(tmp_path / "p")
    for weights in (tmp_path / "p").rglob("*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:-9])
    assert imported(file, tmp_path / "p") == {**first, "reused": False}
    assert files_below(tmp_path / "p") == before


def test_repeats_change_nothing(tmp_path: Path, file: Path):
    first = imported(file, tmp_path / "p")
    before = files_below(tmp_path / "p")
    assert imported(file, tmp_path / "p") == {**first, "reused": True}
    assert files_below(tmp_path / "p") == before
    for arguments in (["--half"], []):
        source = file
        if not arguments:
            source = tmp_path / "other.pt"
            torch.save({k: v * 2 for k, v in torch.load(file, weights_only=True).items()}, source)
        ran = zipbatch("import", "prior", source, "--out", tmp_path / "p", *arguments)
        assert ran.code == 2
        assert "holds the result of other settings or data" in ran.err
    assert files_below(tmp_path / "p") == before


def test_what_cannot_be_imported(tmp_path: Path, file: Path, state: State):
    def refused(source: Path, *parts: str, half: bool = False) -> None:
        ran = zipbatch("import", "prior", source, "--out", tmp_path / "out", *(["--half"] if half else []))
        assert ran.code == 2, ran.out
        assert all(part in ran.err for part in parts), ran.err
        assert not (tmp_path / "out").exists()

    def saved(name: str, **changed: torch.Tensor) -> Path:
        torch.save({**state, **{key.replace("__", "."): tensor for key, tensor in changed.items()}}, tmp_path / name)
        return tmp_path / name

    refused(tmp_path / "gone.pt", "gone.pt", "no such folder", "guided-diffusion .pt")
    refused(write_prior(tmp_path / "folder"), "which purify takes as it is")
    refused(saved("classes.pt", label_emb__weight=torch.zeros(10, 256)), "classes.pt", "is class-conditional")
    refused(saved("more.pt", stranger=torch.zeros(1)), "1 unexpected: stranger")
    refused(saved("nan.pt", out__0__bias=torch.full((64,), float("nan"))), "conv_norm_out.bias", "not finite")
    huge = saved("huge.pt", out__0__bias=torch.full((64,), 1e6))
    refused(huge, "not finite in float16; import it without --half", half=True)
    (tmp_path / "text.pt").write_text("no checkpoint at all")
    refused(tmp_path / "text.pt", "text.pt")


def test_an_occupied_folder_is_left_alone(tmp_path: Path, file: Path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    ran = zipbatch("import", "prior", file, "--out", tmp_path / "mine")
    assert ran.code == 2
    assert "holds other files" in ran.err
    assert set(files_below(tmp_path / "mine")) == {"notes.txt"}


def test_purify_takes_the_file_itself(tmp_path: Path, file: Path):
    """Directly and through the imported folder: other digests, the same pictures."""
    shard = write_shard(tmp_path / "in.tar", [sample(f"k{i}", 0, seed=i, size=64) for i in range(2)])
    imported(file, tmp_path / "p")
    objects, digests = [], []
    for prior in (file, tmp_path / "p"):
        ran = zipbatch("purify", shard, "--prior", prior, "--store", tmp_path / "pur", "--steps", 1, "--json")
        assert ran.code == 0, ran.err
        objects += zipbatch("store", "urls", ran.json["reference"], "--store", tmp_path / "pur").out.splitlines()
        show = zipbatch("store", "show", ran.json["reference"], "--store", tmp_path / "pur", "--json")
        digests.append(show.json["prior_sha256"])
    assert digests == [open_prior(file).digest, open_prior(tmp_path / "p").digest]
    assert digests[0] != digests[1]
    assert objects[0] == objects[1]


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_whole_chain_at_256_px_with_the_published_size(tmp_path: Path):
    """552.8 M random parameters, real images: import, poison, purify, evaluate; the fp16 folder is 1.1 GB."""
    torch.save(random_state(Settings()), tmp_path / "256x256_diffusion_uncond.pt")
    try:
        result = imported(tmp_path / "256x256_diffusion_uncond.pt", tmp_path / "prior", "--half")
        assert (result["image_size"], result["parameters"], result["dtype"]) == (256, 552_814_086, "float16")
        staged = tmp_path / "sample-badnets"
        arguments = ("--attack", "badnets", "--image-size", 256, "--limit", 2)
        ran = zipbatch("poison", sample_source(), *arguments, "--out", staged)
        assert ran.code == 0, ran.err
        (tmp_path / "256x256_diffusion_uncond.pt").unlink()
        ran = zipbatch(
            *("purify", staged, "--prior", tmp_path / "prior", "--store", tmp_path / "pur"),
            *("--steps", 2, "--batch-size", 1, "--transform", "blur:2", "--device", "cpu", "--json"),
        )
        assert ran.code == 0, ran.err
        assert ran.json["counts"] == {split: {"shards": 1, "samples": 2} for split in ("test", "test_poisoned")}
        print(f"purified {ran.json['samples']} images in {ran.json['seconds']} s")  # noqa: T201
        victim = write_victim(tmp_path / "victim", classes=10, size=256)
        ran = zipbatch(
            *("evaluate", victim, "--data", staged, "--purified", "sample-badnets", "--store", tmp_path / "pur"),
            "--json",
        )
        assert ran.code == 0, ran.err
        assert [row["n_ca"] for row in ran.json["rows"]] == [2, 2]
    finally:
        for large in (tmp_path / "256x256_diffusion_uncond.pt", tmp_path / "prior" / WEIGHTS):
            large.unlink(missing_ok=True)


# ---- flags that the tensors do not show


def other(*, heads: int | None = None, new_order: bool = False) -> Settings:
    """Two widths of attention (the middle is as wide as the last level), so that heads are not all of one width."""
    return Settings(channels=64, multiples=(1, 2, 3, 4), blocks=1, attention=(2, 3), heads=heads, new_order=new_order)


FLAGS = [
    (other(heads=4), ["--num-heads", 4]),
    (other(heads=1), ["--num-heads", 1]),
    (other(new_order=True), ["--new-attention-order"]),
    (other(heads=2, new_order=True), ["--num-heads", 2, "--new-attention-order"]),
]


@pytest.mark.parametrize(("settings", "flags"), FLAGS)
def test_other_heads_and_orders_compute_what_they_were_trained_for(tmp_path: Path, settings: Settings, flags: list):
    state = random_state(settings, seed=7)
    torch.save(state, tmp_path / "x.pt")
    found = imported(tmp_path / "x.pt", tmp_path / "said", *flags)
    imported(tmp_path / "x.pt", tmp_path / "silent")
    assert not set(found["assumed"]) & {str(flag) for flag in flags}
    x, t = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)), torch.tensor([321])
    said, silent = open_prior(tmp_path / "said"), open_prior(tmp_path / "silent")
    with torch.inference_mode():
        expected = forward(state, settings, x, t)[:, :3]
        assert float((load_prior(said)(x, t) - expected).abs().max() / expected.abs().max()) < 1e-5
        assert float((load_prior(silent)(x, t) - expected).abs().max() / expected.abs().max()) > 1e-3
    assert said.digest != silent.digest


def test_the_schedule_and_the_target_are_what_was_said(tmp_path: Path, file: Path):
    from diffusers import DDPMScheduler

    said = ("--noise-schedule", "cosine", "--diffusion-steps", 400, "--predict-xstart")
    assert len(imported(file, tmp_path / "p", *said)["assumed"]) == 2
    prior = load_prior(open_prior(tmp_path / "p"))
    expected = DDPMScheduler(num_train_timesteps=400, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert (prior.predicts, len(prior.alpha_bar)) == ("sample", 400)
    assert torch.allclose(torch.from_numpy(prior.alpha_bar).float(), expected, rtol=1e-3)
    imported(file, tmp_path / "linear", "--diffusion-steps", 100)
    assert load_prior(open_prior(tmp_path / "linear")).alpha_bar[-1] < 1e-4, "as much noise in fewer steps"
    ran = zipbatch("import", "prior", file, "--out", tmp_path / "few", "--diffusion-steps", 3)
    assert ran.code == 2
    assert "alpha_bar leaves (0, 1)" in ran.err


def test_what_is_assumed_is_told_and_saying_it_changes_nothing(tmp_path: Path, file: Path, staged: Path):
    ran = zipbatch("import", "prior", file, "--out", tmp_path / "p")
    assert ran.out.splitlines()[1:] == [
        "  assumed: heads of 64 channels; --num-heads or --head-channels says otherwise",
        "  assumed: query, key and value side by side in each head; --new-attention-order says otherwise",
        "  assumed: linear betas; --noise-schedule says otherwise",
        "  assumed: 1000 steps; --diffusion-steps says otherwise",
        "  assumed: noise as the network's target; --predict-xstart says otherwise",
    ]
    said = ("--head-channels", 64, "--old-attention-order", "--noise-schedule", "linear", "--diffusion-steps", 1000)
    again = imported(file, tmp_path / "p", *said, "--predict-noise")
    assert (again["reused"], again["assumed"]) == (True, {})
    alone = Path(shutil.copy(file, tmp_path / "alone.pt"))  # it is told once in a process
    asked = ("--prior", alone, "--store", tmp_path / "pur", "--dry-run", "--resize", "stretch", "--preset", "fast")
    direct = zipbatch("purify", staged, *asked)
    assert direct.code == 0, direct.err
    assert f"{alone}: taken for granted: heads of 64 channels, query, key and value side by side" in direct.err


def test_the_manifest_tells_what_was_said(tmp_path: Path, file: Path):
    imported(file, tmp_path / "p", "--num-heads", 2)
    assert json.loads((tmp_path / "p" / "manifest.json").read_text())["source"]["flags"]["num_heads"] == 2
    ran = zipbatch("import", "prior", file, "--out", tmp_path / "p", "--num-heads", 4)
    assert ran.code == 2
    assert "holds the result of other settings or data, a prior" in ran.err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--num-heads", 3], "make no 3 heads"),
        (["--head-channels", 48], "make no heads of 48"),
        (["--num-heads", 2, "--head-channels", 64], "say the same; give one"),
    ],
)
def test_heads_that_the_widths_do_not_make(tmp_path: Path, file: Path, flags: list, words: str):
    ran = zipbatch("import", "prior", file, "--out", tmp_path / "p", *flags)
    assert ran.code == 2
    assert words in ran.err
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("heads", [0, -1, 3, "4", 10**9])
def test_a_config_with_heads_that_do_not_fit(tmp_path: Path, file: Path, heads: object):
    imported(file, tmp_path / "p")
    config = tmp_path / "p" / "unet" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "attention_heads": heads}))
    ran = zipbatch("purify", sample_source(), "--prior", tmp_path / "p", "--store", tmp_path / "pur", "--steps", 2)
    assert ran.code != 0
    assert "attention_heads" in ran.err
