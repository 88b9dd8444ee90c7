"""What a prior's scheduler says of its training is taken; what the sampler cannot undo is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from tests.making import write_prior, zipbatch
from zipbatch.atomic import sha256_file, sha256_json
from zipbatch.checkpoints import load_prior, open_prior
from zipbatch.checkpoints.prior import alpha_bar_of
from zipbatch.checkpoints.schedule import SCHEDULERS
from zipbatch.errors import UsageError

EVERY = sorted(name for name in dir(diffusers) if name.endswith("Scheduler") and not name.startswith("Flax"))
BUILT = [name for name in SCHEDULERS if name not in {"LMSDiscreteScheduler", "DPMSolverSDEScheduler"}]
"""Those that need no package beyond diffusers."""
SAMPLING = {
    "use_karras_sigmas": True,
    "use_exponential_sigmas": True,
    "timestep_spacing": "trailing",
    "steps_offset": 1,
    "clip_sample": True,
    "solver_order": 3,
    "set_alpha_to_one": False,
    "thresholding": True,
}
"""How to step, which is the sampler's business."""


@pytest.fixture
def prior_with(tmp_path: Path) -> Callable[..., Path]:
    """A prior whose scheduler config is exactly these fields."""
    folder = write_prior(tmp_path / "p", calibrated=False)

    def configure(**fields: Any) -> Path:
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(fields))
        return folder

    return configure


@pytest.mark.parametrize("betas", [{}, {"beta_schedule": "scaled_linear"}, {"beta_schedule": "squaredcos_cap_v2"}])
@pytest.mark.parametrize("name", BUILT)
def test_accepted_schedulers_have_the_same_forward_process(prior_with: Any, name: str, betas: dict[str, Any]):
    """Against diffusers' own object of that class, with what it takes where the config is silent."""
    theirs = getattr(diffusers, name)(**betas)
    ours = alpha_bar_of(open_prior(prior_with(_class_name=name, **betas)))
    np.testing.assert_allclose(ours, theirs.alphas_cumprod.numpy(), rtol=1e-4)
    x, noise = torch.randn(1, 3, 4, 4), torch.randn(1, 3, 4, 4)
    if name in {"DDPMScheduler", "DDIMScheduler", "PNDMScheduler"}:
        x_t = theirs.add_noise(x, noise, torch.tensor([400]))
        assert torch.allclose(x_t, ours[400] ** 0.5 * x + (1 - ours[400]) ** 0.5 * noise, atol=1e-5)


@pytest.mark.parametrize("name", [*sorted(set(EVERY) - set(SCHEDULERS)), "NoSuchScheduler", "", None, 3])
def test_every_other_scheduler_is_refused_by_name(prior_with: Any, name: object):
    with pytest.raises(UsageError, match="has not DDPM's forward process") as caught:
        open_prior(prior_with(_class_name=name, num_train_timesteps=1000))
    assert f"scheduler_config.json: _class_name is {str(name)!r}" in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_flow_sigmas": True}, "use_flow_sigmas is True, a flow's forward process"),
        ({"use_dynamic_shifting": True}, "use_dynamic_shifting is True"),
        ({"timestep_type": "continuous"}, "timestep_type is 'continuous'"),
        (
            {"prediction_type": "flow_prediction"},
            "prediction_type is 'flow_prediction', only 'epsilon', 'v_prediction'",
        ),
        ({"prediction_type": ["epsilon"]}, "prediction_type is"),
        ({"predict_epsilon": "no"}, "predict_epsilon must be true or false"),
        ({"predict_epsilon": False, "prediction_type": "epsilon"}, "keep the true one"),
        ({"predict_epsilon": True, "prediction_type": "v_prediction"}, "keep the true one"),
    ],
)
def test_fields_that_change_the_meaning_are_refused_by_name(prior_with: Any, fields: dict[str, Any], words: str):
    with pytest.raises(UsageError) as caught:
        open_prior(prior_with(_class_name="EulerDiscreteScheduler", **fields))
    assert f"scheduler_config.json: {words}" in str(caught.value) or words in str(caught.value)


@pytest.mark.parametrize("predicts", ["epsilon", "v_prediction", "sample"])
def test_zero_terminal_snr_is_refused_whatever_is_predicted(prior_with: Any, predicts: str):
    folder = prior_with(_class_name="DDIMScheduler", rescale_betas_zero_snr=True, prediction_type=predicts)
    with pytest.raises(UsageError, match="zero terminal SNR"):
        load_prior(open_prior(folder))


# ---- the identity


def test_the_digest_of_an_epsilon_prior_is_what_it_always_was(prior_with: Any):
    fields = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_start": 1e-4, "clip_sample": False}
    folder = prior_with(**fields)
    names = (
        "num_train_timesteps",
        "beta_start",
        "beta_end",
        "beta_schedule",
        "trained_betas",
        "rescale_betas_zero_snr",
    )
    unet = json.loads((folder / "unet" / "config.json").read_text())
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    expected = {
        "weights": sha256_file(weights),
        "unet": {key: value for key, value in unet.items() if not key.startswith("_")},
        "schedule": {name: fields.get(name) for name in names},
    }
    digest = open_prior(folder).digest
    assert digest == sha256_json(expected)
    for same in (
        {"prediction_type": "epsilon"},
        {"predict_epsilon": True},
        SAMPLING,
        {"_class_name": "UniPCMultistepScheduler"},
    ):
        assert open_prior(prior_with(**{**fields, **same})).digest == digest, same


def test_what_changes_pixels_changes_the_digest(prior_with: Any):
    changes: list[dict[str, Any]] = [
        {},
        {"prediction_type": "v_prediction"},
        {"prediction_type": "sample"},
        {"beta_schedule": "squaredcos_cap_v2"},
        {"_class_name": "HeunDiscreteScheduler"},  # silent on its betas, which are others there
    ]
    digests = [open_prior(prior_with(**change)).digest for change in changes]
    assert len(set(digests)) == len(changes)
    assert open_prior(prior_with(predict_epsilon=False)).digest == digests[2], "an old word for the same"


def test_the_purifiers_identity_follows(prior_with: Any, staged: Path, tmp_path: Path):
    def planned(**fields: Any) -> dict[str, Any]:
        ran = zipbatch(
            *("purify", staged, "--prior", prior_with(**fields), "--store", tmp_path / "pur", "--preset", "fast"),
            *("--dry-run", "--json"),
        )
        assert ran.code == 0, ran.err
        return ran.json["purifier"]

    assert planned() == planned(prediction_type="epsilon") != planned(prediction_type="v_prediction")
