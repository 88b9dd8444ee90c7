"""Results as models: the order of their fields is that of the JSON, which users parse."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from tests.results.making import evaluation_row, pipeline_row, seed_row
from zipbatch import results
from zipbatch.results import (
    NO_COST,
    Evaluation,
    EvaluationRow,
    Paired,
    PipelineResults,
    Result,
    SeedlessRow,
    SeedRow,
    dump,
)

_SHARES = "ca asr fpr pa ra disrupted collapsed"
_MEASURES = (
    f"data victim attack purifier purified version settings {_SHARES} n_ca n_asr n_fpr n_pa n_ra n_disrupted "
    "n_collapsed ca_ci95 asr_ci95 fpr_ci95 pa_ci95 ra_ci95 disrupted_ci95 collapsed_ci95 psnr_clean_db ssim_clean "
    "psnr_poisoned_db ssim_poisoned flip_rate n_flip fled der paired n_quarantined n_unlabelled unlabelled_reason"
)
_COST = "calls_least calls_most seconds_per_image seconds_on purified_first purified_last"
_STRENGTHS = "data images suspect triggered limit undefended rungs chosen"
FIELDS = {
    "Benchmark": (
        "device purifier precision image_size batch_size matrix_tflop_per_s gflop_per_pass calls passes_per_s "
        "best_batch floor_images_per_s images_per_s start_s efficiency mfu read_images_per_s decode_images_per_s "
        "encode_images_per_s store_bytes_per_image foretold"
    ),
    "Foretold": "images gpus hours store_gb",
    "Cost": _COST,
    "Evaluation": "rows",
    "EvaluationRow": f"{_MEASURES} {_COST}",
    "Paired": "against ca asr",
    "PairedCounts": "only_here only_there n p",
    "PipelineRow": f"axes {_MEASURES} {_COST} victim_stage",
    "SeedlessRow": f"axes {_MEASURES} {_COST} victim_stage seeds n_seeds seeds_of",
    "SeedRow": (
        "axes seeds n_seeds seeds_of data victim attack purifier purified version settings ca ca_sd asr asr_sd fpr "
        "fpr_sd pa pa_sd ra ra_sd disrupted disrupted_sd collapsed collapsed_sd n_ca n_asr n_fpr n_pa n_ra n_disrupted "
        "n_collapsed ca_ci95 asr_ci95 fpr_ci95 pa_ci95 ra_ci95 disrupted_ci95 collapsed_ci95 psnr_clean_db "
        "psnr_clean_db_sd ssim_clean ssim_clean_sd psnr_poisoned_db psnr_poisoned_db_sd ssim_poisoned ssim_poisoned_sd "
        "flip_rate flip_rate_sd n_flip der der_sd paired n_quarantined n_unlabelled unlabelled_reason calls_least "
        "calls_most seconds_per_image seconds_per_image_sd seconds_on purified_first purified_last victim_stage "
        "findings"
    ),
    "PipelineResults": "rows over_seeds failed",
    "RunAnswer": "rows over_seeds ran skipped failed sheets",
    "StrengthRow": "guidance_exponent agreement residual residual_upper chosen ca asr pa",
    "Undefended": "ca asr",
    "TuneReport": f"victim {_STRENGTHS} settings",
    "FitAnswer": "victim settings fit",
    "FitAndTuneAnswer": f"victim settings {_STRENGTHS} fit",
    "FitReport": (
        "source split images image_size stretched prior prior_size resize learned max_loss ca_before n_ca presets "
        "chosen within"
    ),
    "LearnedThresholds": "why image_size residual_steps levels shares scores",
    "PresetRow": ("preset purifier calls calls_at_least agreement agreement_ci95 loss loss_ci95 ca ca_loss chosen"),
    "FormRow": "form flip_rate",
    "AuditVerdict": (
        "victim data forms images quarantined verdict target target_index suspects triggered deviations "
        "deviations_needed false_alarms least_found share flip_rate driven sureness sureness_needed answers reused "
        "asked_twice changed"
    ),
    "ImageAnswer": "victim version split shard key true_class before after",
    "ImageRow": "key shard score before after moved suspect",
}
MODELS = {
    name: model
    for name in results.__all__
    if isinstance(model := getattr(results, name), type) and issubclass(model, Result) and model is not Result
}


def test_fields_are_those_of_the_json_in_its_order():
    assert {name: " ".join(model.model_fields) for name, model in MODELS.items()} == FIELDS


@pytest.mark.parametrize("name", MODELS)
def test_every_field_says_what_it_is_and_every_number_its_unit(name: str):
    for field, about in MODELS[name].model_fields.items():
        assert about.description, field
    for place, number in _numbers(MODELS[name].model_json_schema()):
        assert number.get("unit"), place


def _numbers(schema: Any, place: str = "", unit: str | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each number of a schema; one within a list or a map has the unit of that where it has none of its own."""
    if isinstance(schema, list):
        for item in schema:
            yield from _numbers(item, place, unit)
    elif isinstance(schema, dict):
        unit = schema.get("unit", unit)
        if schema.get("type") in {"number", "integer"}:
            yield place, {"unit": unit}
        for key, value in schema.items():
            yield from _numbers(value, f"{place}.{key}", unit)


def test_results_are_frozen_and_take_nothing_else():
    row = evaluation_row()
    with pytest.raises(ValidationError, match="frozen"):
        row.ca = 0.5
    with pytest.raises(ValidationError, match="more"):
        evaluation_row(more=1)
    with pytest.raises(ValidationError, match="ca"):
        evaluation_row(ca=float("nan"))
    with pytest.raises(ValidationError, match="must be a text"):
        evaluation_row(data=3)


def test_what_was_not_given_is_not_told():
    assert list(dump(Paired(against="a"))) == ["against"]
    assert list(dump(PipelineResults(rows=[], failed={}))) == ["rows", "failed"]
    old = {name: value for name, value in dump(evaluation_row()).items() if name not in dump(NO_COST)}
    row = EvaluationRow.model_validate(old)
    assert dump(row) == old
    assert not row.has("calls_most")


def test_names_of_files_that_are_not_utf_8_pass():
    row = evaluation_row(data="in\udcff", fled={"c\udcff": 1})
    assert json.loads(json.dumps(dump(row)))["fled"] == {"c\udcff": 1}
    assert Evaluation.model_validate(json.loads(json.dumps({"rows": [dump(row)]}))).rows == [row]


def test_a_deviation_of_seconds_that_are_not_known_comes_last_but_one():
    known = list(dump(seed_row(seconds_per_image=0.5, seconds_per_image_sd=0.1, victim_stage="v")))
    assert known[known.index("seconds_per_image") + 1] == "seconds_per_image_sd"
    unknown = list(dump(seed_row(seconds_per_image=None, seconds_per_image_sd=None, victim_stage="v")))
    assert unknown[-3:] == ["victim_stage", "seconds_per_image_sd", "findings"]


def test_results_of_a_pipeline_are_read_as_they_were_written():
    rows = [pipeline_row(axes={"attack": "a", "seed": None}, ca=0.5, ca_ci95=(0.4, 0.6), n_ca=10)]
    whatever = SeedlessRow(**dump(rows[0]), seeds=[], n_seeds=0, seeds_of=[])
    kept = PipelineResults(rows=rows, over_seeds=[seed_row(ca=0.5, ca_sd=0.1), whatever], failed={"s[a]": "why"})
    read = PipelineResults.model_validate(json.loads(json.dumps(dump(kept))))
    assert read == kept
    assert [type(row) for row in read.over_seeds] == [SeedRow, SeedlessRow]
