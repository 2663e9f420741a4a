"""How the command line prints."""

import json

import pytest

from customcnn.cli.output import print_csv, print_json, say

ODD = "\x1b]0;OWNED\x07\x1b[31mred"
"""A class name that a terminal would obey."""


def test_json_has_no_nan(capsys):
    print_json({"a": [float("nan"), 1.5, {"b": (float("-inf"), True, None)}], "c": "NaN"})
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found == {"a": [None, 1.5, {"b": [None, True, None]}], "c": "NaN"}


def test_csv_is_harmless_on_a_terminal_and_exact_elsewhere(capsys, monkeypatch):
    text = f'file,label\n"a,b",{ODD}\n'
    print_csv(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    print_csv(text)
    assert capsys.readouterr().out == 'file,label\n"a,b",\\x1b]0;OWNED\\x07\\x1b[31mred\n'


def test_lines_for_the_user_are_harmless(capsys):
    say(f"Warning: class {ODD}\nis new")
    assert capsys.readouterr().err == "Warning: class \\x1b]0;OWNED\\x07\\x1b[31mred\nis new\n"
