"""Checks the numbers of a configuration against intervals written as in mathematics."""

from typing import Any

SEEDS = "[0, 4294967295]"  # what a PRNG key and grain take alike


def check_settings(settings: Any, **intervals: str) -> None:
    """Checks that fields lie in their intervals.

    Args:
      settings: a dataclass of numbers, tuples of numbers and None, which is left alone.
      intervals: field name -> interval, such as "[0, 1)" or "(0, inf)"; NaN lies in none.

    Raises:
      ValueError: at the first number that does not, naming the field, the interval and the number.
    """
    for name, interval in intervals.items():
        low, high = map(float, interval[1:-1].split(","))
        value = getattr(settings, name)
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            above = low <= number if interval[0] == "[" else low < number
            below = number <= high if interval[-1] == "]" else number < high
            if not (above and below):
                raise ValueError(f"{name} must lie in {interval}, but is {number}")
