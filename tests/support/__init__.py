"""What tests of several rooms share."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
"""Of the repository: from here `python -m tests.programs.NAME` finds its program."""
