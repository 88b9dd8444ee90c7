"""Tables and pictures for people."""

from zipbatch.report.curve import StrengthLine, strength_curve
from zipbatch.report.figure import check_figure
from zipbatch.report.sheet import Mark, SheetColumn, SheetRow, contact_sheet
from zipbatch.report.tables import evaluation_table, tune_table, versions_table

__all__ = [
    "Mark",
    "SheetColumn",
    "SheetRow",
    "StrengthLine",
    "check_figure",
    "contact_sheet",
    "evaluation_table",
    "strength_curve",
    "tune_table",
    "versions_table",
]
