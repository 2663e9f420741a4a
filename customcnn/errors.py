"""The one exception that users meet, and how names are shown inside its message."""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike

LOST = "The processes of a job stay together."
"""How the error of a process begins that has lost another one."""


NAMED = 5
"""How many of a list an error names: a terminal shows them together with the way out."""


class CustomCNNError(Exception):
    """A rule was broken by the input: the message is one line with the rule, what was received and the way out."""


def show(name: str | PathLike[str]) -> str:
    """Return a file name or value quoted and on one line: newlines, control characters and stray bytes are escaped."""
    text = str(name)
    return ascii(text) if any(0xD800 <= ord(c) <= 0xDFFF for c in text) else repr(text)


def printable(text: object) -> str:
    """Return the text on one line, as UTF-8 can hold it: control characters and stray bytes become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def show_names(names: Iterable[str | PathLike[str]]) -> str:
    """Return names as by `show`, separated by commas: five at most, and how many more, so that the way out is seen."""
    return listed([show(name) for name in names])


def listed(items: Sequence[str]) -> str:
    """Return texts separated by commas: five at most, and how many more there are."""
    more = len(items) - NAMED
    return ", ".join(items[:NAMED]) + (f" and {more:,} more" if more > 0 else "")


def require(part: object, prefix: str, rules: Mapping[str, tuple[bool, str]]) -> None:
    """Check the attributes of an object by rules.

    Args:
        part: what is checked.
        prefix: stands before an attribute's name in the message.
        rules: by attribute, whether its value is fine, and the rule in words.

    Raises:
        CustomCNNError: names the first attribute that breaks its rule.
    """
    for key, (fine, rule) in rules.items():
        if not fine:
            raise CustomCNNError(f"Recipe key {prefix}{key}: {rule}. Received: {getattr(part, key)!r}.")


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory was lacking, of the machine or a device: each backend has an error of its own for that."""
    # TensorFlow's ResourceExhaustedError; PyTorch's OutOfMemoryError, on a CPU a RuntimeError; JAX's XlaRuntimeError.
    kinds = any(mark in type(error).__name__ for mark in ("MemoryError", "OutOfMemory", "ResourceExhausted"))
    return kinds or any(
        mark in str(error) for mark in ("RESOURCE_EXHAUSTED", "can't allocate memory", "std::bad_alloc")
    )


def one_of(value: object, words: Sequence[str]) -> tuple[bool, str]:
    """Return the rule that a value is one of some words."""
    return value in words, f"one of {', '.join(words)}"
