"""Registry of the implementations of attention, and the choice among them."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
from jax.extend.core import InconclusiveDimensionOperation
from jaxtyping import Array, Float

from siren_rope_jax.ops.attention import chunked, cudnn, plain, splash
from siren_rope_jax.ops.attention.operands import Operands
from siren_rope_jax.ops.attention.window import windowed
from siren_rope_jax.ops.meshes import explicit_axes, on_auto_axes, target_device
from siren_rope_jax.ops.slots import OfSlots

Implementation = Literal["auto", "plain", "chunked", "cudnn", "splash"]
_Arrays = dict[str, Any]


class _Entry(NamedTuple):
    attend: Callable[[Operands], Float[Array, "B Q N V"]]
    refusal: Callable[[Operands], str | None]  # one sentence if it cannot serve the operands, else None
    suits: Callable[[Operands, str, str], bool]  # whether it is fast for them on this platform and kind of device
    gradients_only: bool = False  # whether all other derivatives are missing


IMPLEMENTATIONS = {  # in the order in which "auto" tries them
    "splash": _Entry(splash.splash_attention, splash.refusal, splash.suits, gradients_only=True),
    "cudnn": _Entry(cudnn.cudnn_attention, cudnn.refusal, cudnn.suits, gradients_only=True),
    "chunked": _Entry(chunked.chunked_attention, lambda operands: None, chunked.suits),
    "plain": _Entry(plain.plain_attention, lambda operands: None, lambda *_: True),
}


def attend(operands: Operands, implementation: Implementation) -> Float[Array, "B Q N V"]:
    """Computes attention by the named implementation; with "auto", by the first that suits and can serve the operands.

    Raises:
      ValueError: if the named implementation cannot serve the operands, or a bias that holds its arrays in a closure
        meets a mesh with explicit axes.
    """
    if implementation == "auto":
        device = target_device()
        suitable = (entry for entry in IMPLEMENTATIONS.values() if _suits(entry, operands, device))
        chosen = next(entry for entry in suitable if not entry.refusal(operands))
    else:
        chosen = IMPLEMENTATIONS[implementation]
    if refusal := chosen.refusal(operands):
        raise ValueError(refusal)
    if not operands.query.size or not operands.key.size or not operands.value.size:
        chosen = IMPLEMENTATIONS["plain"]  # nothing to compute, so no kernel has to handle empty arrays
    operands = operands.without_padding()

    def of_arrays(given: _Arrays) -> Float[Array, "B Q N V"]:
        whole = dataclasses.replace(operands, **given)
        return chosen.attend(dataclasses.replace(whole, layout=windowed(whole)))

    names = ["query", "key", "value", "layout", "no_history"]
    names += ["scale"] if isinstance(operands.scale, Array) else []
    arrays = {name: getattr(operands, name) for name in names}
    attend_to = _with_gradients_only(of_arrays) if chosen.gradients_only else of_arrays
    if explicit := explicit_axes():
        arrays |= _extras(operands, explicit)
    return on_auto_axes(attend_to, like=operands.query)(arrays)


def _suits(entry: _Entry, operands: Operands, device: tuple[str, str]) -> bool:
    try:
        return entry.suits(operands, *device)
    except InconclusiveDimensionOperation:  # a symbolic length of jax.export, which may turn out short or long
        return False


def _extras(operands: Operands, explicit: tuple[str, ...]) -> _Arrays:
    """Returns bias and relative embedding, whose arrays must be known where they are divided explicitly."""
    relative = operands.relative
    for name, function in (("bias", operands.bias), ("relative.buckets", relative and relative.buckets)):
        if function is not None and not isinstance(function, OfSlots):
            raise ValueError(
                f"{name} must be an OfSlots (alibi_bias, t5_bias, ...), which holds its arrays, where the axes of the "
                f"mesh are Explicit ({', '.join(explicit)}), but is a {type(function).__name__}"
            )
    return {"bias": operands.bias, "relative": relative}


def _with_gradients_only(
    of_arrays: Callable[[_Arrays], Float[Array, "B Q N V"]],
) -> Callable[[_Arrays], Float[Array, "B Q N V"]]:
    """Refuses derivatives of a derivative, which a fused kernel does not have, in words of ours."""

    @jax.custom_jvp
    def undifferentiated(arrays: _Arrays) -> _Arrays:
        return arrays

    @undifferentiated.defjvp
    def refuse(*_):  # type: ignore[no-untyped-def]
        raise ValueError("implementation must be plain or chunked for a second derivative, but is a fused kernel")

    with_gradients = jax.custom_vjp(of_arrays)

    def forward(arrays: _Arrays) -> tuple[Array, Callable[..., Any]]:
        return jax.vjp(of_arrays, undifferentiated(arrays))

    with_gradients.defvjp(forward, lambda pull_back, cotangent: pull_back(cotangent))
    return with_gradients
