"""A linear function whose transpose is given, which like any other is evaluated, batched and differentiated again."""

from collections.abc import Callable
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array

from siren_rope_jax.ops.meshes import vary_alike


def linear_call(function: Callable[..., Any], transpose: Callable[..., Any], residuals: Any, arguments: Any) -> Any:
    """Calls function(residuals, arguments), which reverse mode transposes by transpose(residuals, cotangents).

    `jax.custom_vjp` has no forward mode, and `jax.custom_derivatives.linear_call` neither batches nor differentiates by
    the residuals.

    Args:
      function: linear in its second argument; plain autodiff differentiates it by the first. Closes over no tracers.
      transpose: its transpose, from cotangents of the results to those of the arguments; in the same way.
      residuals: pytree of arrays.
      arguments: pytree of floating-point arrays.

    Returns:
      What the function returns, a pytree of floating-point arrays.
    """
    residuals, arguments = vary_alike((residuals, arguments))
    of_residuals, residuals_as = jax.tree.flatten(residuals)
    count = len(of_residuals)
    flat_function, results = jax.make_jaxpr(function, return_shape=True)(residuals, arguments)
    results_as = jax.tree.structure(results)

    def flat_transpose(*flat: Array) -> list[Array]:
        given = residuals_as.unflatten(flat[:count]), results_as.unflatten(flat[count:])
        return jax.tree.leaves(transpose(*given))

    flat = (*of_residuals, *jax.tree.leaves(arguments))
    results = _linear_call.bind(*flat, function=flat_function, transpose=flat_transpose, residuals=count)
    return results_as.unflatten(results)


_linear_call = core.Primitive("linear_call_of_siren_rope_jax")
_linear_call.multiple_results = True


def _evaluate(*flat: Any, function: core.ClosedJaxpr, **_: Any) -> list[Array]:
    return core.jaxpr_as_fun(function)(*flat)


def _jvp(primals, tangents, *, residuals, **given):  # type: ignore[no-untyped-def]
    results = _linear_call.bind(*primals, residuals=residuals, **given)
    parts = []
    if any(type(tangent) is not ad.Zero for tangent in tangents[residuals:]):
        along = map(ad.instantiate_zeros, tangents[residuals:])
        parts.append(_linear_call.bind(*primals[:residuals], *along, residuals=residuals, **given))
    moved = [i for i, tangent in enumerate(tangents[:residuals]) if type(tangent) is not ad.Zero]
    if moved:

        def by_moved(*some: Array) -> list[Array]:
            flat = list(primals)
            for i, x in zip(moved, some, strict=True):
                flat[i] = x
            return _evaluate(*flat, **given)

        at, along = (tuple(of[i] for i in moved) for of in (primals, tangents))
        parts.append(jax.jvp(by_moved, at, along)[1])
    return results, [sum(some[1:], start=some[0]) for some in zip(*parts, strict=True)]


def _transpose(cotangents, *flat, function, transpose, residuals):  # type: ignore[no-untyped-def]
    given = flat[:residuals]
    cotangents = [
        ad.zeros_like_aval(aval) if type(x) is ad.Zero else x
        for x, aval in zip(cotangents, function.out_avals, strict=True)
    ]
    back = jax.make_jaxpr(transpose)(*given, *cotangents)
    results = _linear_call.bind(
        *given, *cotangents, function=back, transpose=core.jaxpr_as_fun(function), residuals=residuals
    )
    unknown = map(ad.is_undefined_primal, flat[residuals:])
    return [None] * residuals + [x if wanted else None for x, wanted in zip(results, unknown, strict=True)]


def _batch(flat, axes, *, function, transpose, residuals):  # type: ignore[no-untyped-def]
    (size,) = {x.shape[axis] for x, axis in zip(flat, axes, strict=True) if axis is not None}
    # All arguments get the axis, so that all cotangents have one.
    flat = [
        x if i < residuals and axis is None else batching.bdim_at_front(x, axis, size)
        for i, (x, axis) in enumerate(zip(flat, axes, strict=True))
    ]
    axes = [None if i < residuals and axis is None else 0 for i, axis in enumerate(axes)]
    mapped = jax.make_jaxpr(jax.vmap(core.jaxpr_as_fun(function), axes))(*flat)

    def mapped_transpose(*given: Array) -> list[Array]:
        cotangents = len(given) - residuals
        return jax.vmap(transpose, axes[:residuals] + [0] * cotangents)(*given)

    results = _linear_call.bind(*flat, function=mapped, transpose=mapped_transpose, residuals=residuals)
    return results, [0] * len(results)


_linear_call.def_impl(_evaluate)
_linear_call.def_abstract_eval(lambda *_, function, **__: function.out_avals)
mlir.register_lowering(_linear_call, mlir.lower_fun(_evaluate, multiple_results=True))
ad.primitive_jvps[_linear_call] = _jvp
ad.primitive_transposes[_linear_call] = _transpose
batching.primitive_batchers[_linear_call] = _batch
