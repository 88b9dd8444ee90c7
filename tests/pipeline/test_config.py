"""Pipeline files: names, axes and references."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from zipbatch.config import find_config, list_configs, load_config, parse_scalar
from zipbatch.errors import UsageError
from zipbatch.pipeline.config import PipelineConfig, references, resolved

STAGES: dict[str, Any] = {"shards": {"run": "poison"}}


def config(tmp_path: Path, text: str) -> PipelineConfig:
    file = tmp_path / "pipeline.yaml"
    file.write_text(text)
    return load_config(file, PipelineConfig)


def test_axes_are_lists_or_mappings_and_their_values_are_texts(tmp_path: Path):
    read = config(
        tmp_path,
        "matrix: {attack: [badnets, wanet], exponent: [3, 10.5], case: {a: {k: 4}, b: {k: 256}}}\n"
        "stages: {s: {run: poison}}\n",
    )
    assert read.matrix == {
        "attack": {"badnets": "badnets", "wanet": "wanet"},
        "exponent": {"3": 3, "10.5": 10.5},
        "case": {"a": {"k": 4}, "b": {"k": 256}},
    }


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("stages: {}", "at least 1"),
        ("stages: {s: {run: poison}}\nmatrix: {a: []}", "not empty"),
        ("stages: {s: {run: poison}}\nmatrix: {a: 3}", "a list of values, or a mapping"),
        ("stages: {s: {run: poison}}\nmatrix: {a: [1, 1]}", "each value once"),
        ("stages: {s: {run: poison}}\nmatrix: {a: {1: {}, '1': {}}}", "each value once"),
        ("stages: {s: {run: poison}}\nmatrix: {a: ['é']}", "values name files"),
        ("stages: {s: {run: poison}}\nmatrix: {a: ['..']}", "values name files"),
        ("stages: {s: &s {run: poison, more: *s}}", "no config"),
        ("stages: {s: {run: poison, q: !!binary '/w=='}}", "q = b'.*must be text"),
        ("stages: {s: {run: poison, when: 2024-01-01}}", "when = .*must be text"),
        ("stages: {s: {run: poison}}\nmatrix: {a: ['x/y']}", "values name files"),
        ("stages: {s: {run: poison}}\nmatrix: {a: {x: 1}}", "must be a mapping of fields"),
        ("stages: {s: {run: poison}}\nmatrix: {'a b': [1]}", "a name has letters"),
        ("stages: {s: {run: poison}}\nvars: {s: 1}", "'s' names two things"),
        ("stages: {s: {run: poison}}\nstage: {}", "Extra inputs"),
        ("stages: {s: poison}", "valid dictionary"),
        ("stages: {s: {run: poison}}\nseeds: [1, 2, 1]", "1 is there twice"),
        ("stages: {s: {run: poison}}\nseeds: [0, -1]", "a seed is 0 to 4294967295, not -1"),
        ("stages: {s: {run: poison}}\nseeds: [0, 4294967296]", "not 4294967296"),
        ("stages: {s: {run: poison}}\nseeds: [0, 1.0]", "whole numbers"),
        ("stages: {s: {run: poison}}\nseeds: [0, true]", "whole numbers"),
        ("stages: {s: {run: poison}}\nseeds: ['0', '1']", "whole numbers"),
        ("stages: {s: {run: poison}}\nseeds: three", "whole numbers"),
        ("stages: {s: {run: poison}}\nseeds: []", "2 seeds or more"),
        ("stages: {s: {run: poison}}\nseeds: 1", "2 seeds or more"),
        ("stages: {s: {run: poison}}\nseeds: 1000000000000", "at most 1000"),
        ("stages: {s: {run: poison}}\nseeds: 2\nmatrix: {seed: [0, 1]}", "and so is a variable, axis or stage"),
        ("stages: {s: {run: poison}}\nseeds: 2\nvars: {seed: 0}", "and so is a variable, axis or stage"),
    ],
)
def test_wrong_files_are_told_with_the_field(tmp_path: Path, text: str, words: str):
    with pytest.raises(UsageError, match=words):
        config(tmp_path, text)


def test_seeds_are_a_list_or_a_count_and_the_last_axis(tmp_path: Path):
    text = "matrix: {a: [x]}\nstages: {s: {run: poison}}\n"
    assert config(tmp_path, text).axes == {"a": {"x": "x"}}
    assert config(tmp_path, text + "seeds: null").seeds == ()
    assert config(tmp_path, text + "seeds: 3").seeds == (0, 1, 2)
    assert config(tmp_path, text + "seeds: [7, 2]").axes == {"a": {"x": "x"}, "seed": {"7": 7, "2": 2}}
    assert list(config(tmp_path, "stages: {s: {run: poison}}\nmatrix: {seed: [0, 1]}").axes) == ["seed"]


def test_references_are_found_and_replaced_with_their_type():
    value = {"a": "${x}", "b": ["${case.k}", "pre-${y}-${case.k}"], "c": 3, "d": "$x {y}"}
    assert references(value) == {"x", "case", "y"}
    known = {"x": [1, 2], "y": "why", "case.k": 4}
    assert resolved(value, known.__getitem__) == {"a": [1, 2], "b": [4, "pre-why-4"], "c": 3, "d": "$x {y}"}


def test_what_is_no_text_stands_alone():
    with pytest.raises(ValueError, match="cannot stand within 'a-\\$\\{x\\}'"):
        resolved("a-${x}", lambda _: [1])


@pytest.mark.parametrize(
    ("text", "value"),
    [("24", 24), ("null", None), ("0.5", 0.5), ("true", True), ("a b", "a b"), ("2020-01-01", "2020-01-01")],
)
def test_values_from_the_command_line_are_typed_as_in_a_file(text: str, value: object):
    assert parse_scalar(text) == value


@pytest.mark.parametrize("text", ["[1]", "{a: 1}", "!!python/object:os.system x", "'"])
def test_other_values_are_refused(text: str):
    with pytest.raises(UsageError, match=r"single value|YAML"):
        parse_scalar(text)


@pytest.mark.parametrize("name", list_configs("pipelines"))
def test_shipped_pipelines_are_sound(name: str):
    read = load_config(find_config("pipelines", name), PipelineConfig)
    assert read.about
    known = {*read.vars, *read.matrix, *read.stages}
    for fields in read.stages.values():
        assert references(fields) <= known
