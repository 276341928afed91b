"""What a user sees who calls a function with a bad argument."""

import contextlib
import re

import pytest
from jaxtyping import config


@contextlib.contextmanager
def raises_one_sentence(*parts):
    """Expects a ValueError of one line that mentions each part, in the package as it is installed: without the
    type checks that tests/conftest.py adds, which would speak first."""
    checked = not config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(ValueError, match=re.escape(str(parts[0]))) as error:
            yield
    finally:
        config.update("jaxtyping_disable", not checked)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    for part in parts:
        assert str(part) in message
