"""What file managers leave is nobody's data, whatever reads it; tallies count all and name a few."""

from __future__ import annotations

import pytest

from zipbatch.strays import Tally, has_stray, is_stray

STRAYS = [
    "__MACOSX",
    "@eaDir",
    "Thumbs.db",
    "desktop.ini",
    "Desktop.INI",
    ".DS_Store",
    "._0001.jpg",
    ".ipynb_checkpoints",
]


@pytest.mark.parametrize("name", STRAYS)
def test_strays(name: str):
    assert is_stray(name)
    assert has_stray(name)
    assert has_stray(f"a/{name}")
    assert has_stray(f"a/{name}/0001.jpg")


@pytest.mark.parametrize("name", ["0001.jpg", "a.b", "..", ".", "macosx", "thumbs.png", "x.DS_Store", "README"])
def test_data(name: str):
    assert not is_stray(name)
    assert not has_stray(f"./a/{name}/0001.jpg")


def test_a_tally_names_the_first_and_counts_all():
    tally, other = Tally(), Tally()
    for i in range(9):
        tally.add(f"f{i}")
    assert str(tally) == "9 (f0, f1, f2, f3, f4, …)"
    other.add("a\nb")
    assert str(other) == r"1 ('a\nb')"
    other.update(tally)
    assert (other.count, other.examples) == (10, ["a\nb", "f0", "f1", "f2", "f3"])
