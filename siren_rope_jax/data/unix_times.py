"""Units of times that are numbers, and the years in which Unix times may lie."""

FIRST_SECOND, END_SECOND = 315_532_800, 4_102_444_800  # the years 1980 to 2099
MILLISECONDS = {"s": 1e3, "ms": 1.0, "us": 1e-3, "ns": 1e-6, "h": 3.6e6, "d": 8.64e7}  # of each unit
UNIT_NAMES = {
    "s": "seconds",
    "ms": "milliseconds",
    "us": "microseconds",
    "ns": "nanoseconds",
    "h": "hours",
    "d": "days",
}
RELATIVE_UNITS = ("h", "d")  # whose numbers count from an unknown moment


def unix_unit(*times: float) -> str | None:
    """Returns the unit in which all numbers are Unix times of these years; None if there is none."""
    for unit in (unit for unit in MILLISECONDS if unit not in RELATIVE_UNITS):
        if all(FIRST_SECOND <= time * MILLISECONDS[unit] / 1000 < END_SECOND for time in times):
            return unit
    return None
