"""Tables and pictures for people."""

from zipbatch.report.columns import Column, Look, pairs_text, table_text
from zipbatch.report.curve import StrengthLine, strength_curve
from zipbatch.report.sheet import SheetColumn, contact_sheet
from zipbatch.report.tables import evaluation_table, plain_text, tune_table, version_text, versions_table

__all__ = [
    "Column",
    "Look",
    "SheetColumn",
    "StrengthLine",
    "contact_sheet",
    "evaluation_table",
    "pairs_text",
    "plain_text",
    "strength_curve",
    "table_text",
    "tune_table",
    "version_text",
    "versions_table",
]
