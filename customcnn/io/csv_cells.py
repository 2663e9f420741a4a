"""Cells of CSV files that spreadsheet programs show as text, and never take for formulas."""

import re

FORMULA = re.compile(r"'*(?:[=@\t\r\n]|[+-](?!\d+(?:\.\d+)?\Z))")
"""What a spreadsheet program would compute (https://owasp.org/www-community/attacks/CSV_Injection), behind apostrophes
or not. A plain number is none: labels may be -1 and +1."""


def as_text(cell: object) -> object:
    """Return a cell as it is written: an apostrophe stands before text that begins as a formula does; others stay."""
    return f"'{cell}" if isinstance(cell, str) and FORMULA.match(cell) else cell


def from_text(cell: str) -> str:
    """Return what `as_text` was given."""
    return cell[1:] if cell.startswith("'") and FORMULA.match(cell[1:]) else cell
