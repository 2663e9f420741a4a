"""The error of a call that is refused."""

from collections.abc import Callable
from typing import Any

import pytest

from customcnn.errors import CustomCNNError


def refused(
    function: Callable[..., object],
    /,
    *args: Any,
    raises: type[Exception] = CustomCNNError,
    match: str | None = None,
    **options: Any,
) -> str:
    """Return the message with which a call is refused, which is one line.

    Args:
        function: what is called with the other arguments.
        raises: the type of the error.
        match: a regular expression that the message must contain.
    """
    with pytest.raises(raises, match=match) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert len(message.splitlines()) == 1, message
    return message
