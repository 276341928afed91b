"""Checks of settings: numbers against intervals, settings that nothing reads, and changes when a run resumes."""

import dataclasses
import numbers
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

SEEDS = "[0, 4294967295]"  # seeds that both PRNG keys and grain accept


def check_settings(settings: Any, **intervals: str) -> None:
    """Checks that fields lie in their intervals, are whole numbers or among the words where the type says so.

    Args:
      settings: a dataclass whose named fields are numbers, tuples of numbers, or None, which is skipped. Fields whose
        type is `Literal[...]`, or a tuple of it, are checked without being named.
      intervals: field name -> interval, such as "[0, 1)" or "(0, inf)"; NaN lies in none.

    Raises:
      ValueError: at the first value that is not, naming the field, what it may be and what it is.
    """
    hints = typing.get_type_hints(type(settings))
    for name, hint in hints.items():
        several = typing.get_origin(hint) is tuple
        of_each = typing.get_args(hint)[0] if several else hint
        if typing.get_origin(of_each) is Literal:
            words, given = typing.get_args(of_each), getattr(settings, name)
            for word in given if several else (given,):
                if word not in words:
                    raise ValueError(f"{name} must be one of {', '.join(map(str, words))}, but is {word!r}")
    for name, interval in intervals.items():
        low, high = map(float, interval[1:-1].split(","))
        value = getattr(settings, name)
        whole = hints[name] in (int, int | None, tuple[int, ...])
        for number in value if isinstance(value, tuple) else () if value is None else (value,):
            if whole and (type(number) is bool or not issubclass(type(number), numbers.Integral)):
                raise ValueError(f"{name} must be a whole number, but is {number!r}")
            above = low <= number if interval[0] == "[" else low < number
            below = number <= high if interval[-1] == "]" else number < high
            if not (above and below):
                raise ValueError(f"{name} must lie in {interval}, but is {number}")


def check_kind(settings: Any, path: str, read: Mapping[str, Collection[str]]) -> None:
    """Checks that a kind is known, and that settings that it does not read keep their defaults.

    Args:
      settings: a dataclass with the field `kind`; settings of one kind alone are in a field of its name.
      path: path of the settings, for the message.
      read: kind -> names of the other fields that it reads.

    Raises:
      ValueError: at the first setting that would have no effect, naming it and the kind.
    """
    kind = settings.kind
    if kind not in read:
        raise ValueError(f"{path}.kind must be one of {', '.join(read)}, but is {kind}")
    for field in dataclasses.fields(settings):
        if field.name not in {"kind", kind, *read[kind]}:
            factory = field.default_factory
            default = field.default if factory is dataclasses.MISSING else factory()
            for name, value, usual in _changed(getattr(settings, field.name), default, f"{path}.{field.name}"):
                raise ValueError(f"{name} must be left at {usual!r} with {path}.kind {kind}, but is {value!r}")


def _changed(value: Any, default: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _changed(getattr(value, field.name), getattr(default, field.name), f"{path}.{field.name}")
    elif value != default:
        yield path, value, default


Drift = Literal["refused", "allowed", "free"]


def drifts(
    default: Any = dataclasses.MISSING, *, default_factory: Any = dataclasses.MISSING, freely: bool = False
) -> Any:
    """Makes a field whose setting, or group of settings, may change when a run resumes; others may not.

    Args:
      default: as in `dataclasses.field`.
      default_factory: as in `dataclasses.field`.
      freely: True for settings that the result does not depend on, which may always change. The others, settings of the
        training that no checkpoint depends on, may change only with `--allow-drift`.
    """
    metadata: dict[str, Drift] = {"drift": "free" if freely else "allowed"}
    return dataclasses.field(default=default, default_factory=default_factory, metadata=metadata)


def drift_of(settings: Any, path: Sequence[str]) -> Drift:
    """Returns whether a setting may change when a run resumes; a field made by `drifts` covers all settings below it.

    Args:
      settings: a dataclass, possibly of dataclasses.
      path: names of the fields that lead to the setting; "refused" if one does not exist.
    """
    if not path or not dataclasses.is_dataclass(settings):
        return "refused"
    name, *below = path
    fields = {field.name: field for field in dataclasses.fields(settings)}
    if name not in fields:
        return "refused"
    return fields[name].metadata.get("drift") or drift_of(typing.get_type_hints(settings)[name], below)
