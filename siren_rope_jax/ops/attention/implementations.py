"""Registry of the implementations of attention, and the choice among them."""

from collections.abc import Callable
from typing import Literal, NamedTuple

from jaxtyping import Array, Float

from siren_rope_jax.ops.attention import chunked, cudnn, plain, splash
from siren_rope_jax.ops.attention.operands import Operands
from siren_rope_jax.ops.target import target_device

Implementation = Literal["auto", "plain", "chunked", "cudnn", "splash"]


class _Entry(NamedTuple):
    attend: Callable[[Operands], Float[Array, "B Q N V"]]
    refusal: Callable[[Operands], str | None]  # one sentence if it cannot serve the operands, else None
    suits: Callable[[Operands, str, str], bool]  # whether it is fast for them on this platform and kind of device


IMPLEMENTATIONS = {  # in the order in which "auto" tries them
    "splash": _Entry(splash.splash_attention, splash.refusal, splash.suits),
    "cudnn": _Entry(cudnn.cudnn_attention, cudnn.refusal, cudnn.suits),
    "chunked": _Entry(chunked.chunked_attention, lambda operands: None, chunked.suits),
    "plain": _Entry(plain.plain_attention, lambda operands: None, lambda *_: True),
}


def attend(operands: Operands, implementation: Implementation) -> Float[Array, "B Q N V"]:
    """Computes attention by the named implementation; with "auto", by the first that suits and can serve the operands.

    Raises:
      ValueError: if the named implementation cannot serve the operands.
    """
    if implementation == "auto":
        device = target_device()
        suitable = (entry for entry in IMPLEMENTATIONS.values() if entry.suits(operands, *device))
        chosen = next(entry for entry in suitable if not entry.refusal(operands))
    else:
        chosen = IMPLEMENTATIONS[implementation]
    if refusal := chosen.refusal(operands):
        raise ValueError(refusal)
    if not operands.query.size or not operands.key.size or not operands.value.size:
        chosen = IMPLEMENTATIONS["plain"]  # nothing to compute, so no kernel has to handle empty arrays
    return chosen.attend(operands.without_padding())
