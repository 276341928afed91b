"""What a user sees, who has the package without the type checks that tests/conftest.py adds."""

import contextlib
import re

import pytest
from jaxtyping import config


@contextlib.contextmanager
def as_installed():
    """Switches the type checks off, which would speak first."""
    disabled = config.jaxtyping_disable
    config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        config.update("jaxtyping_disable", disabled)


@contextlib.contextmanager
def raises_one_sentence(*parts):
    """Expects a ValueError of one line that mentions each part."""
    with as_installed(), pytest.raises(ValueError, match=re.escape(str(parts[0]))) as error:
        yield
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 300
    for part in parts:
        assert str(part) in message
