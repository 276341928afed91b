"""The command line with one fault planted: `python faults.py FAULT STEP train ...`, for what no signal can do.

A fault strikes the training step of that number, from 1 in this process. Every other step is the product's own
program, unchanged.
"""

import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp

from siren_rope_jax.cli import main
from siren_rope_jax.train import session

_DAY = 86_400
_compile_model, _value_and_grad = session.compile_model, jax.value_and_grad

Step = Callable[[Any, Any], Any]  # of a state and a batch


def nan_gradient(compiled_anew: Step) -> Step:
    """One gradient is NaN; its loss is right."""

    def value_and_grad(*args: Any, **kwargs: Any) -> Step:
        def poisoned(*inputs: Any) -> Any:
            value, gradient = _value_and_grad(*args, **kwargs)(*inputs)
            leaves, tree = jax.tree.flatten(gradient)
            return value, jax.tree.unflatten(tree, [leaves[0] * jnp.nan, *leaves[1:]])

        return poisoned

    def train_step(state: Any, batch: Any) -> Any:
        with mock.patch.object(jax, "value_and_grad", value_and_grad):
            return compiled_anew(state, batch)

    return train_step


def nan_batch(compiled_anew: Step) -> Step:
    """The numbers of the batch are NaN, as by a fault of the memory."""
    return lambda state, batch: compiled_anew(
        state, batch._replace(events=batch.events._replace(dense=batch.events.dense * jnp.nan))
    )


def clock(compiled_anew: Step) -> Step:
    """The wall clock jumps back by a day."""

    def train_step(state: Any, batch: Any) -> Any:
        set_clock_back()
        return compiled_anew(state, batch)

    return train_step


def set_clock_back() -> None:
    """For all that asks Python; the times of files are the system's."""
    seconds, nanoseconds = time.time, time.time_ns
    time.time = lambda: seconds() - _DAY
    time.time_ns = lambda: nanoseconds() - _DAY * 10**9


def strike(fault: Callable[[Step], Step], number: int) -> None:
    """Plants the fault in every model that is compiled from now on."""

    def compile_model(*args: Any, **kwargs: Any) -> Any:
        model = _compile_model(*args, **kwargs)
        faulty, calls = fault(_compile_model(*args, **kwargs).train_step), 0

        def train_step(state: Any, batch: Any) -> Any:
            nonlocal calls
            calls += 1
            return (faulty if calls == number else model.train_step)(state, batch)

        return model._replace(train_step=train_step)

    session.compile_model = compile_model


if __name__ == "__main__":
    name, number, *arguments = sys.argv[1:]
    if (name, number) == ("clock", "0"):
        set_clock_back()
    else:
        strike({"nan-gradient": nan_gradient, "nan-batch": nan_batch, "clock": clock}[name], int(number))
    main(arguments)
