"""Tables and pictures for people."""

from zipbatch.report.audit_text import audit_text
from zipbatch.report.columns import Column, Look, pairs_text, table_text
from zipbatch.report.curve import StrengthLine, strength_curve
from zipbatch.report.figure import check_figure
from zipbatch.report.fit_table import fit_table
from zipbatch.report.sheet import Mark, SheetColumn, SheetRow, contact_sheet
from zipbatch.report.tables import evaluation_table, plain_text, tune_table, version_text, versions_table

__all__ = [
    "Column",
    "Look",
    "Mark",
    "SheetColumn",
    "SheetRow",
    "StrengthLine",
    "audit_text",
    "check_figure",
    "contact_sheet",
    "evaluation_table",
    "fit_table",
    "pairs_text",
    "plain_text",
    "strength_curve",
    "table_text",
    "tune_table",
    "version_text",
    "versions_table",
]
