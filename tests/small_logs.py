"""Small event logs, packed rows of events and tiny models, for the tests that need one."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import polars as pl
from flax import nnx

from siren_rope_jax.batch import Events
from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import EventLog
from siren_rope_jax.data.outcome_scale import OutcomeScale
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.signals import BinarySignal
from siren_rope_jax.data.split import Split
from siren_rope_jax.data.stable_hash import stable_hash
from siren_rope_jax.nn.bias import BIASES, BiasConfig
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.features import InputSpec
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import ROTARIES, RotaryConfig
from siren_rope_jax.nn.rotary.base import SharedSettings
from siren_rope_jax.ops.calendar import split_unix_time
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import OptimizerConfig, make_optimizer
from siren_rope_jax.train.session import input_spec
from siren_rope_jax.train.sharding import Layout
from siren_rope_jax.train.step import CompiledModel, TrainState, compile_model
from siren_rope_jax.train.tasks import make_tasks

START_DAY = 19_100  # 2022-04-18
TASKS = ("click", "like")
SPEC = InputSpec(
    id_names=("item", "tab"),
    id_buckets=(11, 5),
    dense_names=("length", "age"),
    action_features=2,
    context_features=3,
    start_day=START_DAY,
    span_days=30.0,
)
INPUTS = InputConfig(item_buckets=16, categorical_buckets=8, min_count=2)


def small_config(rotary: RotaryConfig | None = None, **changes: object) -> ModelConfig:
    """The tiniest model that has every part: two heads, two rotary pairs each, one block."""
    sizes = {"width": 8, "heads": 2, "layers": 1, "embedding_dim": 4, "action_widths": (8,), "head_widths": (8,)}
    return ModelConfig(rotary=rotary or small_rotary("siren"), **(sizes | changes))  # type: ignore[arg-type]


# Angle networks are tiny; a day counts as much as a position, so that time is felt.
SMALL = {
    "siren": {"width": 8, "hidden_layers": 1},
    "time_order": {"time_scale": 1.0},
    "lie": {"block_size": 4, "time_scale": 1.0},
    "time_scales": {"shortest_seconds": 3_600.0},
    "axes": {"names": ("position", "week")},
    "selective": {"rank": 4},
    "t5": {"buckets": 4, "max_distance": 6},
    "tisasrec": {"max_interval": 30},
}


def small_rotary(kind: str, **changes: object) -> RotaryConfig:
    """A tiny rotation; changes are of settings that sources share, or of the kind's own."""
    shared = {field.name for field in dataclasses.fields(SharedSettings)}
    own = SMALL.get(kind, {}) | {name: changes.pop(name) for name in changes.keys() - shared}
    return RotaryConfig(kind, **own_settings(RotaryConfig, kind, own), **changes)  # type: ignore[arg-type]


def small_bias(kind: str, **changes: object) -> BiasConfig:
    """A tiny bias; changes are of the kind's own settings."""
    return BiasConfig(kind, **own_settings(BiasConfig, kind, SMALL.get(kind, {}) | changes))


def own_settings(config: type, kind: str, values: dict[str, object]) -> dict[str, object]:
    """The settings that a kind alone reads, under its name; nothing if it has none."""
    own = {field.name: field.default_factory for field in dataclasses.fields(config)}
    return {kind: own[kind](**values)} if values else {}


NO_ROTATION = small_rotary("none")
# They differ in nothing but how position and time come in: every rotation and bias, and more of some.
VARIANTS = {
    **{kind: small_config(small_rotary(kind)) for kind in ROTARIES},
    **{kind: small_config(NO_ROTATION, bias=small_bias(kind)) for kind in BIASES if kind != "none"},
    "time_order by head": small_config(small_rotary("time_order", mixing="by_head", learned_mixing=True)),
    "siren with metadata": small_config(small_rotary("siren", metadata=("tab", "length"))),
    "siren with separate action network": small_config(small_rotary("siren", separate_action_network=True)),
    "siren with everything": small_config(
        small_rotary("siren", per_head=True, content_bound=1.0, xpos_base=8.0, partial=0.5, learned_frequencies=True)
    ),
    "axes of time": small_config(small_rotary("axes", names=("day", "span"))),
    "half of the pairs, fast": small_config(small_rotary("ordinal", partial=0.5, proportional=True)),
    "forgetting with time": small_config(NO_ROTATION, bias=small_bias("forgetting", of_time=True)),
    "logged late": small_config(small_rotary("time_scales"), hide_within=60),
    "some blocks without rotation": small_config(nope_every=1),
    "semantic": small_config(small_rotary("siren", time_inputs=(), metadata=("tab",))),
    "time in embedding": small_config(small_rotary("ordinal"), encodings=("calendar",)),
    "time2vec": small_config(NO_ROTATION, encodings=("time2vec",)),
    "added positions": small_config(NO_ROTATION, encodings=("sinusoidal", "learned")),
}
# They differ in more: other weights, or another order of the sums.
FORMS = {
    "grouped queries": small_config(small_rotary("siren", per_head=True), key_heads=1),
    "attention in chunks": small_config(bias=small_bias("hstu"), attention="chunked"),
    "late": small_config(action_fusion="late"),
    "sharper over more": small_config(temperature="learned_log_length"),
    "interleaved": small_config(action_fusion="interleaved"),
    "interleaved with encodings": small_config(
        NO_ROTATION, encodings=("calendar", "learned"), action_fusion="interleaved"
    ),
    "interleaved selective with forgetting": small_config(
        small_rotary("selective"), bias=small_bias("forgetting"), action_fusion="interleaved"
    ),
    "interleaved lie with intervals": small_config(
        small_rotary("lie"), bias=small_bias("tisasrec"), action_fusion="interleaved"
    ),
}


def random_events(segment: np.ndarray, *, seed: int = 0) -> Events:
    """Events for the given segments, with content in the padding too; times ascend in each row."""
    rng = np.random.default_rng(seed)
    rows, slots = segment.shape
    position = np.zeros_like(segment)
    for slot in range(1, slots):
        same = segment[:, slot] == segment[:, slot - 1]
        position[:, slot] = np.where(same, position[:, slot - 1] + 1, 0)
    elapsed = np.cumsum(rng.integers(60, 90_000, segment.shape), axis=1)
    events = Events(
        segment=segment.astype(np.int32),
        position=position.astype(np.int32),
        day=(START_DAY + elapsed // 86_400).astype(np.int32),
        second=(elapsed % 86_400).astype(np.int32),
        elapsed_seconds=elapsed.astype(np.int32),
        ids=rng.integers(0, SPEC.id_buckets, (rows, slots, 2)).astype(np.int32),
        dense=rng.normal(size=(rows, slots, 2)).astype(np.float32),
        actions=rng.integers(0, 2, (rows, slots, 2)).astype(np.float32),
        context=rng.normal(size=(rows, slots, 3)).astype(np.float32),
    )
    return jax.tree.map(jnp.asarray, events)


def small_log(lengths: Sequence[int], *, seed: int = 0) -> EventLog:
    """A log of users with the given numbers of events, interleaved in time; split 60/20/20 by time.

    Clicks follow the item, likes the hour; a tenth of the likes is unobserved. Some ages are missing.
    """
    rng = np.random.default_rng(seed)
    user = rng.permutation(np.repeat(np.arange(len(lengths)), lengths)).astype(np.int32)
    events = len(user)
    time = START_DAY * 86_400_000 + np.cumsum(rng.integers(1_000, 7_200_000, events))
    day, second = split_unix_time(time, unit="ms")
    item = rng.integers(0, 12, events).astype(np.int32)
    tab = rng.integers(0, 4, events)
    click = rng.random(events) < np.where(item % 2, 0.9, 0.1)
    like = rng.random(events) < np.where(second < 43_200, 0.8, 0.2)
    labels = np.stack([click, like], axis=1).astype(np.float32)
    labels[rng.random(events) < 0.1, 1] = np.nan
    dense = np.stack([rng.lognormal(3, 1, events), rng.normal(40, 10, events)], axis=1).astype(np.float32)
    dense[rng.random(events) < 0.2, 1] = np.nan
    return EventLog(
        spec=EventLogSpec(
            files=(Path("log.csv"),),
            user="user",
            item="item",
            timestamp="time",
            timestamp_unit="ms",
            tasks=tuple(BinarySignal(name, name) for name in TASKS),
            actions=tuple(BinarySignal(name, name) for name in TASKS),
            categorical=("tab",),
            dense=("length", "age"),
            split=Split(0.6, 0.8),
        ),
        time_ms=time,
        day=day,
        second=second,
        row=np.arange(events),
        user=user,
        item=item,
        user_ids=pl.Series([f"u{index:04d}" for index in range(len(lengths))]),
        item_ids=pl.Series([f"i{index:02d}" for index in range(12)]),
        labels=labels,
        actions=labels,
        action_known=np.repeat(time[:, None], 2, axis=1),
        action_pending=np.full(2, np.nan, np.float32),
        categorical=stable_hash(pl.Series(tab).cast(pl.String), "tab")[:, None],
        dense=dense,
        task_names=TASKS,
        action_names=TASKS,
        categorical_names=("tab",),
        dense_names=("length", "age"),
        period=np.searchsorted([0.6, 0.8], np.arange(events) / events, side="right").astype(np.int8),
        duplicates=0,
        unmatched=(),
    )


def slate_log(users: int, slates: int, size: int, *, clicked: str = "any", seed: int = 0) -> EventLog:
    """A log of slates of `size` items shown in one second, each with one click, at random or first or last in the file.

    Items, tabs and numbers say nothing of the click. Times have milliseconds of their own within each second.
    """
    rng = np.random.default_rng(seed)
    log = small_log([slates * size] * users, seed=seed)
    slate = rng.permutation(np.repeat(np.arange(users), slates))
    user = np.repeat(slate, size).astype(np.int32)
    second = START_DAY * 86_400 + np.cumsum(rng.integers(1, 7_200, len(slate)))
    jitter = np.sort(rng.integers(0, 1_000, (len(slate), size)), axis=1)
    time = (1_000 * second[:, None] + jitter).ravel()
    place = {"first": 0, "last": size - 1}.get(clicked)
    at = rng.integers(0, size, len(slate)) if place is None else np.full(len(slate), place)
    click = (np.arange(size) == at[:, None]).ravel()
    day, of_day = split_unix_time(time, unit="ms")
    labels = np.stack([click, rng.random(len(user)) < 0.5], axis=1).astype(np.float32)
    known = np.repeat(time[:, None], 2, axis=1)
    known[:, 1] += rng.choice([0, 300, 5_000, 10_000_000], len(user))  # likes may come late
    return dataclasses.replace(
        log,
        time_ms=time,
        day=day,
        second=of_day,
        user=user,
        labels=labels,
        actions=labels,
        action_known=known,
        action_pending=np.array([np.nan, 0.0], np.float32),
    )


def encode(log: EventLog) -> tuple[Encoder, Encoded]:
    """Fits an encoder with tiny tables on the log and encodes the log with it."""
    return Encoder.fit_encode(log, INPUTS)


def heard(model: GenerativeRecommender) -> GenerativeRecommender:
    """Lets the head and the skip's network, whose last layers start at zero, say what reaches them."""
    for network in (model.head, model.context and model.context.network):
        if network is not None:
            last = network.layers[-1].kernel
            last[...] = jnp.asarray(np.random.default_rng(12).normal(size=last.shape), jnp.float32)
    return model


def heard_state(model: CompiledModel) -> TrainState:
    """The state that a compiled model starts with, but heard."""

    def start() -> TrainState:
        state = model.initial_state()
        return state._replace(params=nnx.state(heard(model.merge(state.params))))

    return jax.jit(start, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, model.abstract_state))()


def sequences(lengths: Sequence[int]) -> Encoded:
    """Encoded users of the given lengths whose every array tells which event it is."""
    user = np.repeat(np.arange(len(lengths)), lengths)
    index = np.arange(len(user))
    empty = np.zeros((len(user), 0), np.float32)
    columns = {
        "day": index.astype(np.int32),
        "second": index.astype(np.int32),
        "elapsed_seconds": index.astype(np.int32),
        "ids": empty.astype(np.int32),
        "dense": empty,
        "actions": empty,
        "context": empty,
        "labels": (index % 2).astype(np.float32)[:, None],
    }
    return Encoded(log_index=index, user=user, alone=np.zeros(len(user), bool), columns=columns)


def compile_small(
    encoder: Encoder,
    layout: Layout,
    optimizer: optax.GradientTransformation | None = None,
    *,
    config: ModelConfig | None = None,
    task_weights: tuple[float, ...] = (1.0, 2.0),
    seed: int = 0,
) -> CompiledModel:
    """The tiny model for the inputs of `encoder`; by default with AdamW for 60 steps."""
    optimizer = optimizer or make_optimizer(OptimizerConfig(learning_rate=0.03), 60)
    return compile_model(
        config or small_config(),
        input_spec(encoder, TrainConfig()),
        make_tasks([OutcomeScale(name) for name in TASKS]),
        optimizer,
        layout,
        task_weights=task_weights,
        average_decay=OptimizerConfig().average_decay,
        seed=seed,
    )
