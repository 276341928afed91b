"""Weights of the authors' PyTorch recommenders, run by our model code."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.block import Mlp, RotaryAttention
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import RotaryConfig, SirenRotary, SirenSettings, TimeOrderSettings
from siren_rope_jax.ops.calendar import split_unix_time
from siren_rope_jax.ops.siren import Branches

# Arguments of the authors' constructors, with their defaults; None must be given.
_SHARED: dict[str, Any] = {
    **dict.fromkeys(("d_seq", "d_action", "d_dyn_context")),
    "d_model": 512,
    "num_heads": 4,
    "num_layers": 12,
    "d_labels": 2,
    "dff_multiplier": 4.0,
    "skip_scale": 0.1,
    "attn_scale": 0.025,
}
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "ordinal": _SHARED | {"sequence_length": 1024},
    "torope": _SHARED | {"time_scale": 0.01},
    "siren": _SHARED | {"sequence_length": 1024, "rope_d_angle": 64, "angle_nn_width": 16},
}
_INPUTS = {
    "ordinal": {"sequence_features", "action_features", "dynamic_context_features"},
    "torope": {"sequence_features", "action_features", "dynamic_context_features", "timestamp"},
    "siren": {
        "sequence_features",
        "action_features",
        "dynamic_context_features",
        "timestamp",
        "order_features",
    },
}
# Their angle network reads [order, year, sin day, cos day, sin week, cos week]; ours the five calendar
# features, then metadata. Their year, T / 365 days - 55, is our unclamped T~ over the two years from this day on.
_ANGLE_INPUTS = np.array([3, 2, 5, 4, 1, 0])
_YEAR_START_DAY, _YEAR_SPAN_DAYS = 54 * 365, 2 * 365.0


def from_authors(state_dict: Mapping[str, Any], config: Mapping[str, Any]) -> Callable[..., Float32[Array, "B S K"]]:
    """Loads a recommender of the authors' PyTorch code.

    Args:
      state_dict: their state dict, name -> array with PyTorch's [out, in] kernels. It may hold JAX tracers:
        the function that is returned is differentiable in it.
      config: their constructor's arguments, plus `kind`: "siren", "ordinal" or "torope".

    Returns:
      A function of their inputs by keyword (`sequence_features`, `action_features`,
      `dynamic_context_features`, and `timestamp` (integer Unix seconds) and `order_features` where the kind has
      them; inputs of other kinds are ignored), which returns logits [B, S, labels].

    Raises:
      ValueError: if the kind or an argument is unknown, or a weight is missing, left over or of another
        shape.

    Source: github.com/hailingc/siren_rope. Their float32 calendar arithmetic (off by up to 146 s) is replaced
    by exact calendar features.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _ARGUMENTS:
        raise ValueError(f'config["kind"] must be one of {", ".join(_ARGUMENTS)}, but is {kind!r}')
    unknown = sorted(set(arguments) - set(_ARGUMENTS[kind]))
    if unknown:
        raise ValueError(f"config for kind {kind!r} may hold {sorted(_ARGUMENTS[kind])}, but also holds {unknown}")
    arguments = _ARGUMENTS[kind] | arguments
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise ValueError(f"config must hold {missing}, but does not")
    model = nnx.eval_shape(lambda: _empty_model(kind, arguments))
    weights = _Weights(state_dict)
    _fill(model, weights, arguments.get("rope_d_angle", 1))
    if weights.unread():
        raise ValueError(f"state_dict holds weights that kind {kind!r} does not have: {weights.unread()}")

    def forward(**inputs: Any) -> Float32[Array, "B S K"]:
        absent = sorted(_INPUTS[kind] - set(inputs))
        surplus = sorted(set(inputs) - _INPUTS["siren"])
        if absent or surplus:
            raise ValueError(f"kind {kind!r} needs {sorted(_INPUTS[kind])}; missing {absent}, unknown {surplus}")
        return model(_events(kind, inputs))

    return forward


def _empty_model(kind: str, arguments: dict[str, Any]) -> GenerativeRecommender:
    siren = kind == "siren"
    match kind:
        case "ordinal":
            rotary = RotaryConfig("ordinal", base=100_000.0)
        case "torope":
            rotary = RotaryConfig("time_order", time_order=TimeOrderSettings(time_scale=arguments["time_scale"]))
        case _:
            network = SirenSettings(
                metadata=("order",),
                width=arguments["angle_nn_width"],
                hidden_layers=3,
                clamp_time=False,
                separate_action_network=True,
            )
            rotary = RotaryConfig("siren", preset="published", base=100_000.0, siren=network)
    config = ModelConfig(
        width=arguments["d_model"],
        heads=arguments["num_heads"],
        layers=arguments["num_layers"],
        head_widths=(512, 256),
        feed_forward=arguments["dff_multiplier"],
        attention_scale=arguments["attn_scale"],
        residual_scale=arguments["skip_scale"],
        context_skip=False,
        head_features=False,
        head_calendar=False,
        hide_ties=False,
        rotary=rotary,
    )
    spec = InputSpec(
        dense_names=(*(f"feature_{i}" for i in range(arguments["d_seq"])), *(["order"] if siren else [])),
        action_features=arguments["d_action"],
        context_features=arguments["d_dyn_context"],
        start_day=_YEAR_START_DAY,
        span_days=_YEAR_SPAN_DAYS,
    )
    return GenerativeRecommender(config, spec, (0.0,) * arguments["d_labels"], key=jax.random.key(0))


class _Weights:
    """Reads the state dict, checks each shape and lists the weights that were not read."""

    def __init__(self, state_dict: Mapping[str, Any]):
        self.state_dict, self.seen = state_dict, set()

    def __call__(self, name: str, shape: tuple[int, ...]) -> Float[Array, "..."]:
        if name not in self.state_dict:
            raise ValueError(f"state_dict must hold {name!r}, but does not")
        self.seen.add(name)
        weight = jnp.asarray(self.state_dict[name])
        if weight.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, but has {weight.shape}")
        return weight

    def unread(self) -> list[str]:
        # Each attention repeats the one shared rotary's parameters under its own name.
        return sorted(name for name in set(self.state_dict) - self.seen if ".rope." not in name)


def _fill(model: GenerativeRecommender, weights: _Weights, rope_d_angle: int) -> None:
    def fill(variable: Any, name: str) -> None:
        variable.set_value(weights(name, variable.shape))

    def kernel(name: str, shape: tuple[int, ...]) -> Float[Array, "in out"]:
        return weights(f"{name}.weight", shape[::-1]).T

    def linear(layer: nnx.Linear, name: str) -> None:
        layer.kernel.set_value(kernel(name, layer.kernel.shape))
        fill(layer.bias, f"{name}.bias")

    def norm(layer: nnx.LayerNorm, name: str) -> None:
        fill(layer.scale, f"{name}.weight")
        fill(layer.bias, f"{name}.bias")

    def mlp(module: Mlp, name: str) -> None:
        for index, layer in enumerate(module.layers):
            linear(layer, f"{name}.{2 * index}")

    def attention(module: RotaryAttention, name: str) -> None:
        heads, width = module.config.heads, module.config.width
        # They rotate (2j, 2j + 1), we rotate (j, j + R): the same pairs once q and k are reordered.
        order = np.arange(width).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
        query, key, value, output = (kernel(f"{name}.W_{letter}", (width, width)) for letter in "qkvo")
        module.query.kernel.set_value(query[:, order])
        module.key.kernel.set_value(key[:, order])
        module.value.kernel.set_value(value)
        module.output.kernel.set_value(output)
        module.no_history.set_value(weights(f"{name}.padding_embedding", (width,)))

    pairs = model.config.width // model.config.heads // 2

    def repeated(x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Repeats each angle for the neighbouring pairs that share it."""
        return jnp.repeat(x, pairs // rope_d_angle, axis=-1)

    def angle_network(empty: Mapping[str, Any], name: str) -> Branches:
        names = {
            "sine": [f"{name}.net.{i}.linear" for i in range(3)] + [f"{name}.net.3"],
            "relu": [f"{name}.residual.{2 * i}" for i in range(4)],
        }
        network = {}
        for branch, layers in empty.items():
            shapes = [layer["kernel"].shape for layer in layers]
            shapes[-1] = (shapes[-1][0], rope_d_angle)
            network[branch] = [
                {"kernel": kernel(n, shape), "bias": weights(f"{n}.bias", shape[1:])}
                for n, shape in zip(names[branch], shapes, strict=True)
            ]
            first, *_, last = network[branch]
            first["kernel"] = first["kernel"][_ANGLE_INPUTS]
            last["kernel"], last["bias"] = repeated(last["kernel"]), repeated(last["bias"])
        return network

    inputs, width = model.token.kernel.shape
    if isinstance(model.rotary, SirenRotary):  # the order, the last input, feeds only the angle network
        token = kernel("seq_projection.0", (inputs - 1, width))
        model.token.kernel.set_value(jnp.concatenate([token, jnp.zeros_like(token[:1])]))
        fill(model.token.bias, "seq_projection.0.bias")
    else:
        linear(model.token, "seq_projection.0")
    norm(model.token_norm, "seq_norm")
    mlp(model.actions, "action_embedding")
    mlp(model.head, "head")
    for index, block in enumerate(model.blocks):
        name = f"transformer_layers.{index}"
        attention(block.attention, f"{name}.mha")
        mlp(block.feed_forward, f"{name}.ffwd")
        norm(block.attention_norm, f"{name}.prenorm_1")
        norm(block.feed_forward_norm, f"{name}.prenorm_2")
    assert model.action_attention is not None
    attention(model.action_attention, "action_attention")
    if isinstance(model.rotary, SirenRotary):
        if rope_d_angle < 1 or pairs % rope_d_angle:
            raise ValueError(f"rope_d_angle must divide the {pairs} pairs of a head, but is {rope_d_angle}")
        for network, name in zip(model.rotary.networks, ("angle_nn", "action_angle_nn"), strict=True):
            network.set_value(angle_network(network.get_value(), name))
        model.rotary.scale.set_value(repeated(weights("rope.freq", (rope_d_angle,))))
        fill(model.rotary.gate, "rope.order_scale")


def _events(kind: str, inputs: dict[str, Any]) -> Events:
    features = jnp.asarray(inputs["sequence_features"], jnp.float32)
    batch, length = features.shape[:2]
    zeros = jnp.zeros((batch, length), jnp.int32)
    positions = np.arange(length) if kind == "torope" else np.arange(length)[::-1]  # theirs count down to the newest
    day = second = elapsed = zeros
    if kind != "ordinal":
        timestamp = np.asarray(inputs["timestamp"])
        day, second = map(jnp.asarray, split_unix_time(timestamp))
        elapsed = jnp.asarray((timestamp - timestamp.min(axis=1, keepdims=True)).astype(np.int32))
    if kind == "siren":
        order = jnp.asarray(inputs["order_features"], jnp.float32)[..., None]
        features = jnp.concatenate([features, order], axis=-1)
    return Events(
        segment=zeros + 1,
        position=zeros + positions,
        day=day,
        second=second,
        elapsed_seconds=elapsed,
        ids=jnp.zeros((batch, length, 0), jnp.int32),
        dense=features,
        actions=jnp.asarray(inputs["action_features"], jnp.float32),
        context=jnp.asarray(inputs["dynamic_context_features"], jnp.float32),
    )
