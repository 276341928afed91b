"""The generative recommender: blocks of rotary, strictly causal attention, action attention and task heads."""

import jax
import jax.core
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float32, Integer, Key

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.block import Block, Mlp, RotaryAttention, dense_rows, drop, widen
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.context import ContextSkip, event_context, told_features
from siren_rope_jax.nn.encodings import ENCODINGS
from siren_rope_jax.nn.features import InputFeatures, InputSpec
from siren_rope_jax.nn.rotary import SourceInputs, make_rotary
from siren_rope_jax.nn.trained_range import TrainedRange


class GenerativeRecommender(nnx.Module):
    """Predicts the tasks of each event from the event itself and the user's earlier events and actions.

    Source: Cheng, Sun, Lu 2026 and the authors' code: mixed-value action fusion in every block, one attention over
    the actions after them, and a head on [representation, attended actions, context]; `action_fusion` selects other
    forms. Ours: `head_features` extends the context by the event's dense columns and by indicators of its id columns
    with few values, and `head_calendar` by the hour and the weekday.
    """

    def __init__(self, config: ModelConfig, spec: InputSpec, task_starts: tuple[float, ...], *, key: Key[Array, ""]):
        """Draws the weights.

        Args:
          config: size and form.
          spec: the columns of the events.
          task_starts: output that each task starts with, such as the logit of its base rate in training.
          key: source of all random numbers; parts that do not encode position or time start alike in every variant.

        Raises:
          ValueError: if there is no task, the rotation's metadata names an unknown column, or a setting of the
            rotation does not fit the heads.
        """
        if not task_starts:
            raise ValueError("task_starts must hold one number per task, but are empty")
        dtype = jnp.dtype(config.dtype)
        # The time-dependent parts have their own stream, so that the rest starts alike in every variant.
        body_key, time_key = jax.random.split(key)
        rngs, time_rngs = nnx.Rngs(params=body_key), nnx.Rngs(params=time_key)
        self.config, self.spec = config, spec
        self.trained_range = TrainedRange(config, spec)
        self.features = InputFeatures(
            spec,
            embedding_dim=config.embedding_dim,
            id_dropout=config.id_dropout,
            dense_bins=config.dense_bins,
            rngs=rngs,
        )
        self.token = nnx.Linear(
            self.features.out_features, config.width, dtype=dtype, dot_general=dense_rows, rngs=rngs
        )
        self.token_norm = nnx.LayerNorm(config.width, epsilon=1e-5, dtype=dtype, rngs=rngs)
        self.actions = Mlp((spec.action_features, *config.action_widths, config.width), dtype=dtype, rngs=rngs)
        layer = {"config": config, "spec": spec, "dtype": dtype, "rngs": rngs}
        bias_rngs = nnx.Rngs(params=jax.random.fold_in(key, 2))
        self.blocks = nnx.List(Block(**layer, time_rngs=bias_rngs) for _ in range(config.layers))
        interleaved = config.action_fusion == "interleaved"
        self.action_attention = None if interleaved else RotaryAttention(**layer, time_rngs=bias_rngs)
        tasks, inputs = len(task_starts), config.width * (1 if interleaved else 2) + spec.context_features
        self.head = Mlp((inputs, *config.head_widths, tasks), dtype=dtype, rngs=rngs)
        told = told_features(config, spec)
        for stream, more in zip((4, 3), told, strict=True):
            if more:
                widen(self.head.layers[0], more, key=jax.random.fold_in(key, stream))
        last, start = self.head.layers[-1].kernel, self.head.layers[-1].bias
        assert start is not None
        last[...] = jnp.zeros_like(last[...])
        start[...] = jnp.asarray(task_starts, jnp.float32)
        self.head_dropout = nnx.Dropout(config.dropout)
        has_skip = config.context_skip and spec.context_features + sum(told) > 0
        skip_rngs = nnx.Rngs(params=jax.random.fold_in(key, 5))
        self.context = ContextSkip(config, spec, tasks, rngs=skip_rngs) if has_skip else None
        rotary = config.rotary
        self.metadata_columns = tuple(self.features.columns(rotary.source.metadata(rotary.own)))
        inputs_of_source = SourceInputs(
            spec,
            config.width // config.heads,
            config.width,
            key_heads=config.key_heads or config.heads,
            metadata_features=len(self.metadata_columns),
        )
        self.rotary = make_rotary(rotary, inputs_of_source, time_rngs)

        def encodings(*, added: bool) -> nnx.List:
            wanted = (ENCODINGS[name] for name in config.encodings if ENCODINGS[name].added == added)
            return nnx.List(
                encoding(spec, config.width, base=rotary.base, dtype=dtype, rngs=time_rngs) for encoding in wanted
            )

        self.time_inputs, self.added_encodings = encodings(added=False), encodings(added=True)

    def attentions(self) -> dict[str, RotaryAttention]:
        """Returns the attentions by name, in the order in which they act."""
        found = {f"layer {number}": block.attention for number, block in enumerate(self.blocks, start=1)}
        return found if self.action_attention is None else found | {"past actions": self.action_attention}

    def __call__(self, events: Events, *, dropout_key: Key[Array, ""] | None = None) -> Float32[Array, "B S K"]:
        """Scores every event.

        Args:
          events: packed rows.
          dropout_key: key of the dropout, in training only.

        Returns:
          Outputs of the tasks, such as logits, float32; those of padding mean nothing.
        """
        if not isinstance(events.position, jax.core.Tracer):
            self.trained_range.check_positions(events.position)
            self.trained_range.check_times(events.elapsed_seconds)
        keys = (
            [None] * (len(self.blocks) + 3)
            if dropout_key is None
            else jax.random.split(dropout_key, len(self.blocks) + 3)
        )
        features = self.features(events, dropout_key=keys[0])
        token, actions = self.token(features), self.actions(events.actions)
        # Actions that are tokens themselves get the encodings of position and time too.
        interleaved = self.config.action_fusion == "interleaved"
        for encoding in self.time_inputs:
            time = encoding(events)
            token += time
            actions = actions + time if interleaved else actions
        x, actions = self.token_norm(jax.nn.relu(token)), jax.nn.relu(actions)
        for encoding in self.added_encodings:
            place = encoding(events).astype(x.dtype)
            x += place
            actions = actions + place if interleaved else actions
        rotations = self.rotary(events, features[..., self.metadata_columns], x)
        block_rotation, action_rotation = (None, None) if rotations is None else rotations
        times = events.elapsed_seconds if self.config.hide_ties else None
        tokens, on_values = events, None
        if interleaved:
            tokens, times = interleave(events, hide_ties=self.config.hide_ties)
            block_rotation = jax.tree.map(lambda array: jnp.repeat(array, 2, axis=1), block_rotation)
            x = jnp.stack([x, actions], axis=2).reshape(x.shape[0], -1, x.shape[2])
        elif self.config.action_fusion == "mixed_value":
            on_values = actions
        every = self.config.nope_every
        for number, (block, key) in enumerate(zip(self.blocks, keys[3:], strict=True), start=1):
            rotation = None if every is not None and number % every == 0 else block_rotation
            x = block(x, on_values, tokens, times, rotation, dropout_key=key)
        if self.action_attention is None:
            seen = [x[:, 0::2]]
        else:
            seen = [x, self.action_attention(x, actions, events, times, action_rotation)]
        context = event_context(events, self.config, self.spec)
        inputs = jnp.concatenate([*seen, context.astype(x.dtype)], axis=-1)
        logits = self.head(drop(self.head_dropout, inputs, keys[1])).astype(jnp.float32)
        return logits if self.context is None else logits + self.context(context, dropout_key=keys[2])


def interleave(events: Events, *, hide_ties: bool) -> tuple[Events, Integer[Array, "B T"] | None]:
    """Puts each event's action after it, [e1, a1, e2, a2, ...], at the same position and time.

    Args:
      events: packed rows.
      hide_ties: whether events of the same time are hidden from each other's actions.

    Returns:
      The tokens' events, twice as many, and the times that define visibility: a token sees those of earlier times, and
      an action also the events of its own time. None if the order alone defines it. A row may span 68 years.
    """
    tokens: Events = jax.tree.map(lambda array: jnp.repeat(array, 2, axis=1), events)
    if not hide_ties:
        return tokens, None
    # Unsigned, since twice the seconds of 68 years fit into a uint32; an int32 would hold only 34 years.
    since = (events.elapsed_seconds - events.elapsed_seconds.min(axis=1, keepdims=True)).astype(jnp.uint32)
    return tokens, jnp.stack([2 * since, 2 * since + 1], axis=2).reshape(tokens.segment.shape)
