"""How far work has got, in words."""

from __future__ import annotations

import random

import pytest

from zipbatch.report.counts import Counts
from zipbatch.report.progress import Part, Progress, TimeLeft
from zipbatch.report.units import about_text, age_text, clock_text, size_text


class Clock:
    """A clock that is set."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def at(done: int, total: int | None, what: str = "work") -> Progress:
    return Progress(what=what, parts=(Part("images", done, total),))


def test_the_line_says_shards_images_rate_time_left_and_notes():
    progress = Progress(
        what="purifying in",
        parts=(Part("shards", 1, 3), Part("images", 97, 180)),
        per_s=4.1,
        notes=("reused 0", "failed 0"),
    )
    assert progress.text(21) == "1/3 shards 97/180 images 4.1/s ETA 0:21 reused 0 failed 0"
    assert progress.share == pytest.approx(97 / 180)
    assert progress.value(21)["images"] == {"done": 97, "total": 180}
    assert progress.value(21)["eta_s"] == 21


def test_what_nobody_has_counted_promises_nothing():
    progress = at(97, None)
    assert progress.share is None
    assert progress.text(None) == "97 images"


@pytest.mark.parametrize("seed", range(5))
def test_the_time_left_is_that_of_the_pace_so_far(seed: int):
    """Whatever was reused at the start: only what this run does sets the pace."""
    rng = random.Random(seed)
    total, pace = rng.randrange(100, 10_000), rng.uniform(0.5, 50)
    done = start = rng.randrange(total // 2)
    clock = Clock()
    left = TimeLeft(clock)
    left.note(at(start, total))
    assert left.seconds() is None
    while done < total - 1:
        step = rng.randrange(1, total // 10)
        done = min(total, done + step)
        clock.now += (done - start) / pace - (clock.now - 1000)
        left.note(at(done, total))
        assert left.seconds() == pytest.approx((total - done) / pace, rel=1e-6, abs=1e-6)
        clock.now += 0.1
        assert left.seconds() == pytest.approx(max(0, (total - done) / pace - 0.1), rel=1e-6, abs=1e-6)
        clock.now -= 0.1


def test_other_work_and_work_begun_again_have_a_pace_of_their_own():
    clock = Clock()
    left = TimeLeft(clock)
    for done in (0, 50):
        left.note(at(done, 100))
        clock.now += 10
    assert left.seconds() is not None
    left.note(at(0, 100, "other"))
    assert left.seconds() is None
    left.note(at(50, 100, "other"))
    left.note(at(10, 100, "other"))
    assert left.seconds() is None


def test_units():
    assert [size_text(n) for n in (0, 1023, 1024, 340 * 1024, 5 * 2**40)] == [
        "0 B",
        "1023 B",
        "1.0 KiB",
        "340 KiB",
        "5.0 TiB",
    ]
    assert [clock_text(s) for s in (0, 21.4, 3723, 90_000)] == ["0:00", "0:21", "1:02:03", "1d 01:00"]
    assert [about_text(s) for s in (3, 60, 170, 7200, 3 * 86_400)] == [
        "less than a minute",
        "about a minute",
        "about 3 minutes",
        "about 2 hours",
        "about 3 days",
    ]
    assert [age_text(s) for s in (-5, 59, 300, 3 * 3600, 12 * 86_400)] == ["now", "now", "5 min", "3 h", "12 d"]


def test_work_gets_its_name_from_who_shows_it_and_tells_its_parts():
    progress = Progress(
        parts=(Part("shards", 1, 3), Part("images", 97)), counts=Counts(unit="shards", total=3, computed=1)
    )
    shown = progress.shown("purifying in")
    assert (progress.what, shown.what, shown.counts) == ("", "purifying in", progress.counts)
    assert shown.part("images") == Part("images", 97)
    with pytest.raises(LookupError, match="steps: not counted; there are: shards, images"):
        shown.part("steps")
