"""The command line with one fault planted: `python faults.py FAULT STEP train ...`, for what no signal can do.

Only the surroundings of the product are changed: what jax.value_and_grad returns, what a batch holds, what the clock
says. Up to the faulty step the programs that run are those of the product.
"""

import sys
import time
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import numpy as np

from siren_rope_jax.cli import main
from siren_rope_jax.train import loop, session

_DAY = 86_400


def plant_nan_gradient(step: int) -> None:
    """One gradient of the training step of that number, from 1 in this process, is NaN; its loss is right."""
    real = session.compile_model

    def value_and_grad(*args: Any, **kwargs: Any) -> Callable[..., Any]:
        differentiated = _value_and_grad(*args, **kwargs)

        def poisoned(*inputs: Any) -> Any:
            value, gradient = differentiated(*inputs)
            leaves, tree = jax.tree.flatten(gradient)
            return value, jax.tree.unflatten(tree, [leaves[0] * np.nan, *leaves[1:]])

        return poisoned

    def compile_model(*args: Any, **kwargs: Any) -> Any:
        sound, faulty = real(*args, **kwargs), real(*args, **kwargs)
        calls = 0

        def train_step(*inputs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls != step:
                return sound.train_step(*inputs)
            with mock.patch.object(jax, "value_and_grad", value_and_grad):
                return faulty.train_step(*inputs)

        return sound._replace(train_step=train_step)

    _value_and_grad = jax.value_and_grad
    session.compile_model = compile_model


def plant_nan_batch(step: int) -> None:
    """The numbers of the batch of that step, from 1 in this process, are NaN, as by a fault of the memory."""
    calls, real = 0, loop.put_batch

    def put_batch(mesh: Any, batch: dict[str, np.ndarray]) -> Any:
        nonlocal calls
        calls += 1
        return real(mesh, batch | {"dense": np.full_like(batch["dense"], np.nan)} if calls == step else batch)

    loop.put_batch = put_batch


def plant_clock_jump(step: int) -> None:
    """The wall clock jumps back by a day at that step, from 1 in this process; from the start if 0."""
    calls, real = 0, loop.put_batch
    clock, nanoseconds = time.time, time.time_ns

    def jump() -> None:
        time.time = lambda: clock() - _DAY
        time.time_ns = lambda: nanoseconds() - _DAY * 10**9

    def put_batch(*inputs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == step:
            jump()
        return real(*inputs)

    loop.put_batch = put_batch
    if step == 0:
        jump()


if __name__ == "__main__":
    fault, step, *arguments = sys.argv[1:]
    {"nan-gradient": plant_nan_gradient, "nan-batch": plant_nan_batch, "clock": plant_clock_jump}[fault](int(step))
    main(arguments)
