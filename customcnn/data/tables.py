"""CSV files with a header, as this package and spreadsheets write them."""

import csv
import io
from collections.abc import Iterator, Sequence

from customcnn.errors import CustomCNNError, show
from customcnn.io.csv_cells import from_text
from customcnn.io.remote_path import Address, Folder

DELIMITERS = (",", ";", "\t")  # spreadsheets write semicolons where a comma is the decimal point
UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the byte order marks of a spreadsheet's "Unicode text"


def read_rows(path: Folder, columns: Sequence[str]) -> list[dict[str, str]]:
    """Read a CSV with a header into one dictionary per row, its cells as they were before `as_text`.

    Args:
        path: the file, UTF-8, with or without a byte order mark, or UTF-16 with one; separated by commas, semicolons
            or tabs.
        columns: the columns that must be there; case and spaces around their names do not matter.

    Raises:
        CustomCNNError: the file is missing, is not a CSV, or lacks a column.
    """
    return list(rows(path, columns))


def rows(path: Folder, columns: Sequence[str]) -> Iterator[dict[str, str]]:
    """Do the same, one row at a time."""
    try:
        file = io.BytesIO(path.read_bytes()) if isinstance(path, Address) else path.open("rb")
        encoding = "utf-16" if file.read(2) in UTF_16 else "utf-8-sig"
        # No newline is the end of a line but keeps its bytes: carriage returns inside names must not become newlines.
        with io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as text:
            for row in _reader(text, path, columns):
                yield {from_text(k): from_text(v or "") for k, v in row.items() if k is not None}
    except (OSError, UnicodeError, csv.Error) as error:
        raise CustomCNNError(f"A CSV file is readable text. Received: {show(path)} ({error}).") from None


def _reader(text: io.TextIOWrapper, path: Folder, columns: Sequence[str]) -> "csv.DictReader[str]":
    """Return the reader with the delimiter that makes the columns; the error is about commas."""
    failure: Exception | None = None
    for delimiter in DELIMITERS:
        text.seek(0)
        reader = csv.DictReader(text, strict=True, delimiter=delimiter)
        try:
            names = list(reader.fieldnames or ())
        except csv.Error as error:
            failure = failure or error
            continue
        reader.fieldnames = [_wanted(name, names, columns) for name in names]
        missing = [column for column in columns if column not in reader.fieldnames]
        if not missing:
            return reader
        failure = failure or CustomCNNError(
            f"The columns {', '.join(columns)} are needed. Received: {show(path)} without {', '.join(missing)}."
        )
    raise failure or AssertionError(DELIMITERS)


def _wanted(name: str, names: Sequence[str], columns: Sequence[str]) -> str:
    plain = name.strip().lower()
    return next((column for column in columns if column.lower() == plain and column not in names), name)
