"""The dual-branch angle network: a SIREN (sine layers) plus a ReLU network, over a plain pytree."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Key

from siren_rope_jax.ops.arguments import check_arrays, check_flags, count, described, number, of_rank
from siren_rope_jax.ops.sincos import sincos

Layer = Mapping[str, Float[Array, "..."]]
Branches = Mapping[str, Sequence[Layer]]
BRANCHES = ("sine", "relu")
_CHOICES = (["sine"], ["relu"], ["relu", "sine"])


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class SirenParams:
    """Weights of the dual-branch network, a pytree, and the frequency of the sine layers that they were drawn for.

    The frequency is part of the structure, as the number of layers is: what saves arrays alone, such as a checkpoint,
    restores it only into parameters that have it.
    """

    branches: Any  # whatever a transformation of trees makes of `Branches`
    """{branch: [{"kernel": [in, out], "bias": [out]}, ...]}, float32."""
    omega0: float = dataclasses.field(metadata={"static": True})

    def __post_init__(self) -> None:
        """Refuses an omega0 that is not positive and finite."""
        number("omega0", self.omega0, above=0)


def siren_init(
    key: Key[Array, ""],
    in_features: int,
    out_features: int,
    *,
    width: int = 64,
    hidden_layers: int = 2,
    omega0: float = 10.0,
    branches: tuple[str, ...] = BRANCHES,
    zero_last: bool = False,
) -> SirenParams:
    """Draws the weights of the dual-branch network.

    Args:
      key: a typed PRNG key; each branch has its own stream, so leaving one out does not change the other.
      in_features: inputs per event, F.
      out_features: outputs per event, one for each rotary pair.
      width: units of each hidden layer.
      hidden_layers: layers with a sine or ReLU, of the same number in both branches (the paper 2, its code 3).
      omega0: frequency of the sine layers; their weights are drawn in inverse proportion to it.
      branches: "sine", "relu" or both.
      zero_last: whether the last layers start at 0, so that the angles start as those of ordinal RoPE exactly. The
        other layers are the same as without.

    Returns:
      The weights, float32, with omega0. Sine branch: first kernel U(+-1/n_in), later ones and the last, linear one
      U(+-sqrt(6/n_in)/omega0). ReLU branch: U(+-1/sqrt(n_in)). Every bias: U(+-1/sqrt(n_in)), PyTorch's default, on
      which the published start depends.

    Raises:
      ValueError: if a size or omega0 is not positive, or a branch is unknown, repeated or none is given.

    Source: Sitzmann et al. 2020, section 3.2; Cheng, Sun, Lu 2026, section 3.2.
    """
    in_features, out_features = count("in_features", in_features), count("out_features", out_features)
    width, hidden_layers = count("width", width), count("hidden_layers", hidden_layers)
    omega0 = number("omega0", omega0, above=0)
    check_flags(zero_last=zero_last)
    if not isinstance(branches, tuple | list) or sorted(branches, key=str) not in _CHOICES:
        raise ValueError(f'branches must be "sine", "relu" or both, but is {described(branches)}')
    if not isinstance(key, jax.Array) or not jnp.issubdtype(key.dtype, jax.dtypes.prng_key) or key.shape:
        raise ValueError(f"key must be one typed PRNG key, as jax.random.key makes, but is {described(key)}")

    def layer(key: Key[Array, ""], n_in: int, n_out: int, kernel_bound: float) -> Layer:
        kernel_key, bias_key = jax.random.split(key)
        bias_bound = 1 / math.sqrt(n_in)
        return {
            "kernel": jax.random.uniform(kernel_key, (n_in, n_out), jnp.float32, -kernel_bound, kernel_bound),
            "bias": jax.random.uniform(bias_key, (n_out,), jnp.float32, -bias_bound, bias_bound),
        }

    def bound(branch: str, index: int, n_in: int) -> float:
        if branch == "relu":
            return 1 / math.sqrt(n_in)
        return 1 / n_in if index == 0 else math.sqrt(6 / n_in) / omega0

    shapes = [in_features] + [width] * hidden_layers + [out_features]
    keys: dict[str, Key[Array, ""]] = dict(zip(BRANCHES, jax.random.split(key, 2), strict=True))
    drawn = {
        branch: [
            layer(layer_key, n_in, n_out, bound(branch, index, n_in))
            for index, (layer_key, n_in, n_out) in enumerate(
                zip(jax.random.split(keys[branch], len(shapes) - 1), shapes[:-1], shapes[1:], strict=True)
            )
        ]
        for branch in branches
    }
    if zero_last:
        drawn = {branch: [*hidden, jax.tree.map(jnp.zeros_like, last)] for branch, (*hidden, last) in drawn.items()}
    return SirenParams(drawn, omega0)


def siren_apply(
    params: SirenParams | Branches, features: Float[Array, "*batch F"], *, omega0: float | None = None
) -> Float32[Array, "*batch R"]:
    """Evaluates f_sin(features) + f_dnn(features), the branches that `params` holds.

    Args:
      params: as `siren_init` returns them, or their branches alone, such as weights of another framework.
      features: inputs of each event.
      omega0: frequency of the sine layers; needed with branches alone, since other parameters carry theirs.

    Returns:
      float32 outputs, one for each rotary pair; before the learned scale, in no unit yet.

    Raises:
      ValueError: if `params` holds no known branch, its kernels and biases do not fit the features and each other, or
        omega0 is missing, not positive, or another than the one they carry.

    Source: Sitzmann et al. 2020, eq. 1; Cheng, Sun, Lu 2026, eq. 1.
    """
    check_arrays(features=features)
    if not features.ndim:
        raise ValueError("features must have shape [..., F], but are one number")
    branches, omega0 = _opened(params, omega0)
    widths = {branch: _width(branch, layers, features.shape[-1]) for branch, layers in branches.items()}
    if len(set(widths.values())) > 1:
        raise ValueError(f"both branches must have one number of outputs, but have {widths}")
    activations = {"sine": lambda x: sincos(omega0 * x)[0], "relu": jax.nn.relu}
    outputs = []
    for branch, (*hidden, last) in branches.items():
        x = features.astype(jnp.float32)
        for layer in hidden:
            x = activations[branch](_linear(layer, x))
        outputs.append(_linear(last, x))
    return sum(outputs[1:], start=outputs[0]).astype(jnp.float32)


def _opened(params: SirenParams | Branches, omega0: float | None) -> tuple[Branches, float]:
    carried = params.omega0 if isinstance(params, SirenParams) else omega0
    branches = params.branches if isinstance(params, SirenParams) else params
    if not isinstance(branches, Mapping) or not branches or not set(branches) <= set(BRANCHES):
        given = sorted(map(str, branches)) if isinstance(branches, Mapping) else f"a {type(branches).__name__}"
        raise ValueError(f'params must hold "sine", "relu" or both, but holds {given}')
    if carried is None:
        raise ValueError("omega0 must be given with branches alone, which do not carry it, but is missing")
    carried = number("omega0", carried, above=0)
    if omega0 is not None and number("omega0", omega0, above=0) != carried:
        raise ValueError(f"omega0 must be the one that the parameters were drawn for, {carried}, but is {omega0}")
    return branches, carried


def _width(branch: str, layers: object, features: int) -> int:
    """Returns the number of a branch's outputs.

    Raises:
      ValueError: if it is no list of layers, or one of them does not fit what it is given.
    """
    if not isinstance(layers, Sequence) or not layers:
        raise ValueError(f"the {branch} branch must be a list of layers, but is {described(layers)}")
    for index, layer in enumerate(layers):
        name = f"layer {index} of the {branch} branch"
        if not isinstance(layer, Mapping) or set(layer) != {"kernel", "bias"}:
            given = sorted(map(str, layer)) if isinstance(layer, Mapping) else f"a {type(layer).__name__}"
            raise ValueError(f"{name} must hold a kernel and a bias, but holds {given}")
        check_arrays(**{f"the {part} of {name}": x for part, x in layer.items()})
        kernel, bias = layer["kernel"].shape, layer["bias"].shape
        if len(kernel) != 2 or kernel[0] != features or bias != kernel[1:]:
            raise ValueError(
                f"{name} must have a kernel of shape [{features}, out] and a bias of [out], "
                f"but they have {kernel} and {bias}"
            )
        features = kernel[1]
    return features


def _linear(layer: Layer, x: Float[Array, "*batch F"]) -> Float[Array, "*batch D"]:
    # In full float32 on TPUs and GPUs too, whose default rounds the factors to 8 or 10 bits: these become radians.
    kernel, bias = (layer[name].astype(jnp.float32) for name in ("kernel", "bias"))
    return jnp.matmul(x, kernel, precision=jax.lax.Precision.HIGHEST) + of_rank(bias, x.ndim)
