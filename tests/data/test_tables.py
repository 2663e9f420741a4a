"""CSV files as spreadsheets write them."""

import pytest

from customcnn.data.tables import read_rows
from tests.support.errors import refused

ROWS = [{"path": "all/1, 2.bmp", "group": "Zürich"}, {"path": "hem/3.bmp", "group": "a\nb"}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_what_spreadsheets_write_is_read(tmp_path, encoding, delimiter, end):
    lines = [("path", "group"), ('"all/1, 2.bmp"', "Zürich"), ("hem/3.bmp", '"a\nb"')]
    text = "".join(delimiter.join(line) + end for line in lines)
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_rows(tmp_path / "t.csv", ("path", "group")) == ROWS


def test_columns_are_named_in_any_case_with_spaces_around(tmp_path):
    (tmp_path / "t.csv").write_text('"Path"; GROUP ;Note\nall/1.bmp;H3;x\n')
    assert read_rows(tmp_path / "t.csv", ("path", "group")) == [{"path": "all/1.bmp", "group": "H3", "Note": "x"}]
    # What is called so exactly comes first.
    (tmp_path / "t.csv").write_text("Path,path\nwrong,right\n")
    assert read_rows(tmp_path / "t.csv", ("path",)) == [{"Path": "wrong", "path": "right"}]


@pytest.mark.parametrize("text", ["path,subject\n1,2\n", "path;subject\n1;2\n", "1;2\n"])
def test_a_column_that_is_missing(tmp_path, text):
    (tmp_path / "t.csv").write_text(text)
    message = refused(read_rows, tmp_path / "t.csv", ("path", "group"))
    assert message.startswith(f"The columns path, group are needed. Received: '{tmp_path}/t.csv' without ")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b'"path";"group\n'])
def test_what_is_no_table(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    refused(read_rows, tmp_path / "t.csv", ("path", "group"))
