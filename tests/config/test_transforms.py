"""The grammar of transforms, and that settings and projectors read the same one."""

from __future__ import annotations

import pytest

from zipbatch.config import Settings, Transform, Transforms, parse_transform
from zipbatch.diffusion import parse_projector
from zipbatch.diffusion.projectors import Projector


class Some(Settings):
    transforms: Transforms


FORMS = {
    "gray": Transform(kind="gray"),
    "blur:1": Transform(kind="blur", factor=1),
    "blur:12@mean": Transform(kind="blur", factor=12, grid="mean"),
    "blur:3@key": Transform(kind="blur", factor=3, grid="key"),
    "gauss:0.8": Transform(kind="gauss", sigma=0.8),
    "gauss:100": Transform(kind="gauss", sigma=100.0),
    "dct:4": Transform(kind="dct", factor=4),
}
WRONG = ["", "grey", "gray ", "gray@key", "blur", "blur:", "blur:0", "blur:02", "blur:2.5", "blur:2@", "blur:123456"]
WRONG += ["blur:2\n", "blur:2@all", "gauss", "gauss:", "gauss:-1", "gauss:.5", "gauss:1e1", "gauss:0", "gauss:0.000"]
WRONG += ["gauss:100.5", "gauss:1.2345", "dct:0", "dct:2.5", "dct:2@key", "GRAY", "blur:\u0663"]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_is_read_alike_everywhere(text: str):
    assert parse_transform(text) == FORMS[text]
    assert Some.model_validate({"transforms": text}).transforms == (text,)
    made = parse_projector(text)
    assert isinstance(made, Projector)
    assert made.name == text
    assert (made.keyed is not None) == (FORMS[text].grid == "key")


@pytest.mark.parametrize("text", WRONG)
def test_anything_else_is_refused_alike_everywhere(text: str):
    messages = []
    for read in (parse_transform, parse_projector, lambda text: Some(transforms=(text,))):
        with pytest.raises(ValueError, match=r"unknown transform|needs? a sigma above 0 and up to 100") as caught:
            read(text)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert messages[0] in messages[2]


def test_projections_are_told_from_means_and_gaussians():
    told = {text: transform.is_projection for text, transform in FORMS.items()}
    assert [text for text, is_one in told.items() if not is_one] == ["blur:12@mean", "gauss:0.8", "gauss:100"]
