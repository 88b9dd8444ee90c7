"""Tables and pictures for people."""

from zipbatch.report.curve import StrengthLine, strength_curve
from zipbatch.report.sheet import SheetColumn, contact_sheet
from zipbatch.report.tables import evaluation_table, tune_table, versions_table

__all__ = [
    "SheetColumn",
    "StrengthLine",
    "contact_sheet",
    "evaluation_table",
    "strength_curve",
    "tune_table",
    "versions_table",
]
