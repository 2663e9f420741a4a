"""What a command line printed: `printed(*shell("models"))` where it is to succeed, `error_line(...)` where it fails."""

import re


def printed(status: int, output: str, errors: str) -> tuple[str, str]:
    """Return the output and the error stream of a command line that succeeded."""
    assert status == 0, errors
    return output, errors


def error_line(status: int, output: str, errors: str) -> str:
    """Return the one line with which a command line failed, less its "Error: ": status 1, and nothing on the output."""
    assert status == 1, errors
    assert output == ""
    assert re.fullmatch(r"Error: [^\n]+\n", errors), errors
    return errors.removeprefix("Error: ").removesuffix("\n")
