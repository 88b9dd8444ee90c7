"""What ``zipbatch tune --fit`` found, for people."""

from __future__ import annotations

from zipbatch.report.columns import NOTHING, PLAIN, Column, Look, table_text
from zipbatch.report.units import share_text
from zipbatch.results import FitReport, PresetRow


def fit_table(found: FitReport, look: Look = PLAIN) -> str:
    """A row for each preset, weakest first, what its columns mean, and which was chosen and why."""
    labelled = found.ca_before is not None
    columns = [
        Column("preset"),
        Column("calls", right=True),
        Column("answers kept", right=True),
        Column("loss at most", right=True),
        *((Column("CA", right=True), Column("CA lost", right=True)) if labelled else ()),
        Column(""),
        Column("purifier", rank=1),
    ]
    cells = [
        (
            row.preset,
            _calls(row),
            _with_interval(row.agreement, row.agreement_ci95),
            share_text(row.loss),
            *((_share(row.ca), _share(row.ca_loss)) if labelled else ()),
            "chosen" if row.chosen else "",
            row.purifier,
        )
        for row in found.presets
    ]
    lines = [_about(found), *_meaning(labelled=labelled), choice_told(found), *_learned(found)]
    return table_text(columns, cells, look) + "".join(f"{line}\n" for line in lines)


def _calls(row: PresetRow) -> str:
    least, most = row.calls_at_least, row.calls
    return str(most) if least == most else f"{least} to {most}"


def _share(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"-{share_text(-value)}" if value < 0 else share_text(value)


def _with_interval(value: float, interval: tuple[float, float]) -> str:
    low, high = interval
    return f"{share_text(value)} ±{share_text((high - low) / 2)}"


def _about(found: FitReport) -> str:
    size = f"{'stretched to ' if found.stretched else ''}{found.image_size} px"
    where = f"{found.images} clean images, split {found.split}, {size}"
    seen = "" if found.prior_size == found.image_size else f", purified at {found.prior_size} px"
    return where + seen + ("" if found.ca_before is None else f"; CA without a defence {share_text(found.ca_before)}")


def _meaning(*, labelled: bool) -> list[str]:
    lines = [
        "± is half the 95 % Wilson interval",
        "loss at most: the share of answers that change, which needs no labels. CA changes",
        "by no more than that (1 - agreement >= |CA loss|), by less where wrong ones change",
    ]
    return [*lines, *(["CA and CA lost are from the labels, which the choice does not use"] if labelled else [])]


def choice_told(found: FitReport) -> str:
    """Which preset was chosen and why."""
    row = next(row for row in found.presets if row.chosen)
    allowed = f"‹max_loss› {share_text(found.max_loss)}"
    if not found.within:
        return f"no preset is within {allowed}: {row.preset}, which changes least, is taken"
    said = f"{row.preset} is the strongest within {allowed}"
    if (worst := row.loss_ci95[1]) > found.max_loss:
        said += f",\nbut its interval reaches {share_text(worst)}: more images tell it better (‹fit_limit›)"
    return said


def _learned(found: FitReport) -> list[str]:
    reasons = dict.fromkeys(one.why for one in found.learned)
    return [f"thresholds of 'repaint' were learned from these images:\n{why}" for why in reasons]
