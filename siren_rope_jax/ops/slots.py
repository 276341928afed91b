"""Functions of query slots and key slots: what biases and intervals share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.extend
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Integer, Num, UInt

from siren_rope_jax.ops.arguments import device_integers, widened
from siren_rope_jax.ops.meshes import on_auto_axes


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class OfSlots:
    """A function of query slots and key slots that knows of how many, so that attention refuses it for others.

    The sum of two, such as ALiBi and the bias of HSTU, knows it too. A pytree: its arrays may be traced and divided.
    """

    function: Callable[[Any, Int[Array, " Q"], Int[Array, " K"]], Array] = dataclasses.field(metadata={"static": True})
    arrays: Any  # first argument of the function, a pytree
    queries: int = dataclasses.field(metadata={"static": True})
    keys: int = dataclasses.field(metadata={"static": True})

    def __call__(self, query_slots: Int[Array, " Q"], key_slots: Int[Array, " K"]) -> Array:
        """Computes the block of these slots."""
        # The first array says how the batch is divided; a function of the slots alone has none.
        leaves = jax.tree.leaves(self.arrays)
        function = on_auto_axes(self.function, like=leaves[0], axes=1) if leaves else self.function
        return function(self.arrays, query_slots, key_slots)

    def __add__(self, other: object) -> "OfSlots":
        """Adds block by block.

        Raises:
          ValueError: if the other knows no slots, or the two are for different numbers of them.
        """
        if not isinstance(other, OfSlots):
            raise ValueError(f"a bias must be added to another OfSlots, but is added to a {type(other).__name__}")
        sizes, others = (self.queries, self.keys), (other.queries, other.keys)
        if sizes != others:
            raise ValueError(
                f"biases must be for the same queries and keys to be added, but are for {sizes} and {others}"
            )
        both = _Sum(self.function, other.function)
        return dataclasses.replace(self, function=both, arrays=(self.arrays, other.arrays))

    def __radd__(self, start: int) -> "OfSlots":
        """Lets `sum`, which starts at 0, add several."""
        return self if isinstance(start, int) and start == 0 else self + start


@dataclasses.dataclass(frozen=True)
class _Sum:
    """Sum of two functions; equal to the sum of equal ones, so that a compiled function knows it again."""

    first: Callable[..., Array]
    second: Callable[..., Array]

    def __call__(self, arrays: tuple[Any, Any], rows: Int[Array, " Q"], columns: Int[Array, " K"]) -> Array:
        """Adds block by block."""
        return self.first(arrays[0], rows, columns) + self.second(arrays[1], rows, columns)


def opened(function: OfSlots | Callable[..., Any], *examples: Array) -> OfSlots:
    """Converts a function of slots, which may close over traced arrays, to one that takes them.

    Args:
      function: returned as it is if it holds its arrays already.
      examples: query slots and key slots; the result serves as many alone.
    """
    if isinstance(function, OfSlots):
        return function
    closed = jax.make_jaxpr(function)(*examples)
    # Keeps no constant, since tracers among them would outlive their trace.
    of_jaxpr = functools.partial(_evaluate, closed.jaxpr)
    return OfSlots(of_jaxpr, [jnp.asarray(x) for x in closed.consts], *(x.size for x in examples))


def _evaluate(jaxpr: jax.extend.core.Jaxpr, arrays: list[Array], *slots: Array) -> Array:
    (block,) = jax.core.eval_jaxpr(jaxpr, arrays, *slots)
    return block


def at_slots(rows: Num[Array, "B S *F"], slots: Int[Array, " Q"]) -> Num[Array, "B Q *F"]:
    """Returns the numbers of some slots.

    Raises:
      ValueError: if more slots are asked for than there are.
    """
    if isinstance(rows.shape[1], int) and slots.shape[0] > rows.shape[1]:
        raise ValueError(
            f"a bias must know every slot of queries and keys, but knows {rows.shape[1]} of {slots.shape[0]}: keys of "
            "another sequence need key_positions and key_times"
        )
    return rows[:, slots]


def changes(x: Integer[Array, "B S"]) -> Bool[Array, "B S"]:
    """Returns where a row holds another number than the slot before, at its first slot too."""
    return jnp.pad(x[:, 1:] != x[:, :-1], ((0, 0), (1, 0)), constant_values=True)


def along_segments(
    combine: Callable[[Any, Any], Any], starts: Bool[Array, "B S *_"], x: Num[Array, "B S *F"]
) -> Num[Array, "B S *F"]:
    """Combines what each slot holds with all before it, anew at each start.

    Args:
      combine: associative, such as `jnp.add`.
      starts: where the slots before count no more.
      x: what each slot holds.
    """

    def later(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
        return a[0] | b[0], jnp.where(b[0], b[1], combine(a[1], b[1]))

    if isinstance(x.shape[1], int):
        return jax.lax.associative_scan(later, (starts, x), axis=1)[1]
    # A symbolic length, of jax.export, has no tree of pairs: one event after the other.
    along = jnp.swapaxes(starts, 0, 1), jnp.swapaxes(x, 0, 1)
    first = jax.tree.map(lambda x: x[0], along)
    _, combined = jax.lax.scan(lambda a, b: ((so_far := later(a, b)), so_far[1]), first, along)
    return jnp.swapaxes(combined, 0, 1)


def apart(a: Integer[Array, "*#shape"], b: Integer[Array, "*#shape"]) -> UInt[Array, "*shape"]:
    """Computes |a - b|, which always fits the unsigned integers of the same width."""
    unsigned = f"uint{8 * jnp.result_type(a, b).itemsize}"
    return jnp.maximum(a, b).astype(unsigned) - jnp.minimum(a, b).astype(unsigned)


def between(
    times: Integer[Array, "B S"],
    key_times: Integer[Array, "B T"],
    query_slots: Int[Array, " Q"],
    key_slots: Int[Array, " K"],
) -> UInt[Array, "B Q K"]:
    """Computes |t_query - t_key| of some slots, exactly."""
    return apart(at_slots(times, query_slots)[:, :, None], at_slots(key_times, key_slots)[:, None, :])


def sides_of(**rows: tuple[Array, Array | None]) -> list[tuple[Array, Array]]:
    """Returns query side and key side of each of the rows, which all have the shapes of the first."""
    sides = []
    for name, (query, key) in rows.items():
        query = signed_integers(name, query)
        sides.append((query, query if key is None else signed_integers(f"key_{name}", key)))
        for label, side, first in zip((name, f"key_{name}"), sides[-1], sides[0], strict=True):
            check_axes(label, side, "[B, S]")
            if side.shape != (expected := (sides[0][0].shape[0], first.shape[1])):
                raise ValueError(f"{label} must have shape {expected}, but the shape is {side.shape}")
    return sides


def check_together(**of_keys: Array | None) -> None:
    """Refuses arrays of the keys of which only one is given."""
    given = [name for name, array in of_keys.items() if array is not None]
    if len(given) == 1:
        raise ValueError(f"{' and '.join(of_keys)} must be given together, but only {given[0]} is given")


def signed_integers(name: str, x: Array) -> Array:
    """Returns signed integers of at least 32 bits, as an array of the device."""
    x = device_integers(name, x)
    if not jnp.issubdtype(x.dtype, jnp.signedinteger):
        raise ValueError(f"{name} must be signed integers, but the dtype is {x.dtype}")
    return widened(name, x)


def check_axes(name: str, x: Array, axes: str) -> None:
    """Refuses an array that is empty or has another number of axes than, say, "[B, S]"."""
    if x.ndim != axes.count(",") + 1 or not x.size:
        raise ValueError(f"{name} must have shape {axes} and not be empty, but the shape is {x.shape}")
