"""Weights of the authors' PyTorch recommenders, run by our model code."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from siren_rope_jax.nn.features import Events, InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender, Mlp, ModelConfig, RotaryAttention
from siren_rope_jax.nn.rotary import RotaryConfig
from siren_rope_jax.ops.calendar import split_unix_time

# What the authors' constructors take, with their defaults; None has to be given.
_SHARED: dict[str, Any] = dict(
    d_seq=None, d_action=None, d_dyn_context=None, d_model=512, num_heads=4, num_layers=12, d_labels=2,
    dff_multiplier=4.0, skip_scale=0.1, attn_scale=0.025,
)  # fmt: skip
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "ordinal": _SHARED | dict(sequence_length=1024),
    "torope": _SHARED | dict(time_scale=0.01),
    "siren": _SHARED | dict(sequence_length=1024, rope_d_angle=64, angle_nn_width=16),
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
# Their angle network reads [order, year, sin day, cos day, sin week, cos week]; ours the five calendar features,
# then metadata. Their year, T / 365 days - 55, is our unclamped T~ over the two years from this day on.
_ANGLE_INPUTS = np.array([3, 2, 5, 4, 1, 0])
_YEAR_START_DAY, _YEAR_SPAN_DAYS = 54 * 365, 2 * 365


def from_authors(
    state_dict: Mapping[str, Any], config: Mapping[str, Any]
) -> Callable[..., Float32[Array, "B S K"]]:
    """Loads a recommender of the authors' PyTorch code.

    Args:
      state_dict: their state dict, name -> array with PyTorch's [out, in] kernels. It may hold JAX tracers: the
        function that is returned is differentiable in it.
      config: their constructor's arguments, plus `kind`: "siren", "ordinal" or "torope".

    Returns:
      A function of their inputs by keyword (`sequence_features`, `action_features`, `dynamic_context_features`,
      and `timestamp` (integer Unix seconds) and `order_features` where the kind has them; those that it lacks may
      be given and are ignored), which returns logits [B, S, labels].

    Raises:
      ValueError: if the kind or an argument is unknown, or a weight is missing, left over or of another shape.

    Source: github.com/hailingc/siren_rope. Their float32 calendar arithmetic (off by up to 146 s) is replaced by
    exact calendar features.
    """
    arguments = dict(config)
    kind = arguments.pop("kind", None)
    if kind not in _ARGUMENTS:
        raise ValueError(f'config["kind"] must be one of {", ".join(_ARGUMENTS)}, but is {kind!r}')
    unknown = sorted(set(arguments) - set(_ARGUMENTS[kind]))
    if unknown:
        raise ValueError(
            f"config for kind {kind!r} may hold {sorted(_ARGUMENTS[kind])}, but also holds {unknown}"
        )
    arguments = _ARGUMENTS[kind] | arguments
    missing = [name for name, value in arguments.items() if value is None]
    if missing:
        raise ValueError(f"config must hold {missing}")
    model = nnx.eval_shape(lambda: _empty_model(kind, arguments))
    weights = _Weights(state_dict)
    _fill(model, weights, kind)
    if weights.unread():
        raise ValueError(f"state_dict holds weights that kind {kind!r} does not have: {weights.unread()}")

    def forward(**inputs: Any) -> Float32[Array, "B S K"]:
        absent = sorted(_INPUTS[kind] - set(inputs))
        surplus = sorted(set(inputs) - _INPUTS["siren"])
        if absent or surplus:
            raise ValueError(
                f"kind {kind!r} needs {sorted(_INPUTS[kind])}; missing {absent}, unknown {surplus}"
            )
        return model(_events(kind, inputs))

    return forward


def _empty_model(kind: str, arguments: dict[str, Any]) -> GenerativeRecommender:
    siren = kind == "siren"
    rotary = RotaryConfig(
        kind="time_order" if kind == "torope" else kind,
        base=10_000.0 if kind == "torope" else 100_000.0,
        time_scale=arguments.get("time_scale", 0.01),
        width=arguments.get("angle_nn_width", 16),
        hidden_layers=3,
        clamp_time=False,
        metadata=("order",) if siren else (),
        separate_action_network=True,
    )
    config = ModelConfig(
        width=arguments["d_model"],
        heads=arguments["num_heads"],
        layers=arguments["num_layers"],
        head_widths=(512, 256),
        feed_forward=arguments["dff_multiplier"],
        attention_scale=arguments["attn_scale"],
        residual_scale=arguments["skip_scale"],
        context_skip=False,
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
    """Reads the state dict and knows what was not read."""

    def __init__(self, state_dict: Mapping[str, Any]):
        self.state_dict, self.seen = state_dict, set()

    def __call__(self, name: str) -> Float[Array, "..."]:
        if name not in self.state_dict:
            raise ValueError(f"state_dict must hold {name!r}, but does not")
        self.seen.add(name)
        return jnp.asarray(self.state_dict[name])

    def unread(self) -> list[str]:
        # Each attention repeats the one shared rotary's parameters under its own name.
        return sorted(name for name in set(self.state_dict) - self.seen if ".rope." not in name)


def _set(variable: nnx.Variable, value: Float[Array, "..."], name: str) -> None:
    if variable.get_value().shape != value.shape:
        raise ValueError(
            f"{name} must have shape {variable.get_value().shape} in our order, but has {value.shape}"
        )
    variable.set_value(value)


def _fill(model: GenerativeRecommender, weights: _Weights, kind: str) -> None:
    def linear(layer: nnx.Linear | nnx.LayerNorm, name: str) -> None:
        kernel = weights(f"{name}.weight").T
        _set(layer.kernel if isinstance(layer, nnx.Linear) else layer.scale, kernel, f"{name}.weight")
        _set(layer.bias, weights(f"{name}.bias"), f"{name}.bias")

    def mlp(module: Mlp, name: str) -> None:
        for index, layer in enumerate(module.layers):
            linear(layer, f"{name}.{2 * index}")

    def attention(module: RotaryAttention, name: str) -> None:
        heads, width = module.config.heads, module.config.width
        # They rotate (2j, 2j + 1), we rotate (j, j + R): the same pairs once q and k dimensions are reordered.
        order = np.arange(width).reshape(heads, -1, 2).swapaxes(1, 2).ravel()
        for layer, letter in (
            (module.query, "q"),
            (module.key, "k"),
            (module.value, "v"),
            (module.output, "o"),
        ):
            kernel = weights(f"{name}.W_{letter}.weight").T
            _set(layer.kernel, kernel[:, order] if letter in "qk" else kernel, f"{name}.W_{letter}.weight")
        vector = weights(f"{name}.padding_embedding")
        _set(module.no_history, vector.reshape(heads, -1), f"{name}.padding_embedding")

    pairs = model.config.width // model.config.heads // 2

    def repeated(x: Float[Array, "..."]) -> Float[Array, "..."]:
        """One angle serves several neighbouring pairs: repeat it until there is one for each."""
        if pairs % x.shape[-1]:
            raise ValueError(f"rope_d_angle must divide the {pairs} pairs of a head, but is {x.shape[-1]}")
        return jnp.repeat(x, pairs // x.shape[-1], axis=-1)

    def angle_network(name: str) -> dict[str, list[dict[str, Float[Array, "..."]]]]:
        names = {
            "sine": [f"{name}.net.{i}.linear" for i in range(3)] + [f"{name}.net.3"],
            "relu": [f"{name}.residual.{2 * i}" for i in range(4)],
        }
        network = {
            branch: [{"kernel": weights(f"{n}.weight").T, "bias": weights(f"{n}.bias")} for n in layers]
            for branch, layers in names.items()
        }
        for first, *_, last in network.values():
            first["kernel"] = first["kernel"][_ANGLE_INPUTS]
            last["kernel"], last["bias"] = repeated(last["kernel"]), repeated(last["bias"])
        return network

    token = weights("seq_projection.0.weight").T
    if kind == "siren":  # the order feeds the angle network alone
        token = jnp.concatenate([token, jnp.zeros_like(token[:1])])
    _set(model.token.kernel, token, "seq_projection.0.weight")
    _set(model.token.bias, weights("seq_projection.0.bias"), "seq_projection.0.bias")
    linear(model.token_norm, "seq_norm")
    mlp(model.actions, "action_embedding")
    mlp(model.head, "head")
    for index, block in enumerate(model.blocks):
        name = f"transformer_layers.{index}"
        attention(block.attention, f"{name}.mha")
        mlp(block.feed_forward, f"{name}.ffwd")
        linear(block.attention_norm, f"{name}.prenorm_1")
        linear(block.feed_forward_norm, f"{name}.prenorm_2")
    attention(model.action_attention, "action_attention")
    if kind == "siren":
        for network, name in zip(model.rotary.networks, ("angle_nn", "action_angle_nn"), strict=True):
            network.set_value(angle_network(name))
        _set(model.rotary.scale, repeated(weights("rope.freq")), "rope.freq")
        _set(model.rotary.gate, weights("rope.order_scale"), "rope.order_scale")


def _events(kind: str, inputs: dict[str, Any]) -> Events:
    features = jnp.asarray(inputs["sequence_features"], jnp.float32)
    batch, length = features.shape[:2]
    zeros = jnp.zeros((batch, length), jnp.int32)
    positions = (
        np.arange(length) if kind == "torope" else np.arange(length)[::-1]
    )  # theirs count down to the newest
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
        elapsed=elapsed,
        ids=jnp.zeros((batch, length, 0), jnp.int32),
        dense=features,
        actions=jnp.asarray(inputs["action_features"], jnp.float32),
        context=jnp.asarray(inputs["dynamic_context_features"], jnp.float32),
    )
