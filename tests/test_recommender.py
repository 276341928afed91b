"""What a score may depend on, for every model; and that variants differ in nothing but how they tell time."""

import dataclasses
import functools
import re
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from small_logs import FORMS, SPEC, VARIANTS, heard, random_events, small_bias, small_config, small_rotary

from siren_rope_jax.batch import Events
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.recommender import GenerativeRecommender
from siren_rope_jax.nn.rotary import AxesSettings, RotaryConfig

pytestmark = pytest.mark.slow

SLOTS = 8  # rows too: row i asks about event i
TASK_LOGITS = (-2.0, 0.5)
RATES = 1 / (1 + np.exp(-np.array(TASK_LOGITS)))
# Sums over 8 slots in another order: a few units in the last place of values of order 1.
CLOSE = {"rtol": 1e-5, "atol": 3e-6}
MODELS = VARIANTS | FORMS
TIME = ("day", "second", "elapsed_seconds")
every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_model = pytest.mark.parametrize("model", MODELS)


def make(config: ModelConfig, seed: int = 0) -> GenerativeRecommender:
    return GenerativeRecommender(config, SPEC, TASK_LOGITS, key=jax.random.key(seed))


def awake(model: GenerativeRecommender) -> GenerativeRecommender:
    """Moves every parameter off its start, so that nothing hides behind a zero."""
    leaves, tree = jax.tree.flatten(nnx.state(model))
    rng = np.random.default_rng(11)
    moved = [jnp.asarray(x + rng.normal(0, 0.15, x.shape), jnp.float32) for x in leaves]
    nnx.update(model, jax.tree.unflatten(tree, moved))
    return model


@functools.cache
def compiled(config: ModelConfig):
    """Logits of the awake model, and gradients of the logits chosen by `weights`: of parameters and numbers."""
    graph, params = nnx.split(awake(make(config)))

    def chosen(params, numbers, events, weights):
        logits = nnx.merge(graph, params)(events._replace(**numbers))
        return (logits.sum(-1) * weights).sum(), logits

    gradient = jax.jit(
        jax.value_and_grad(chosen, argnums=(0, 1), has_aux=True),
        # Compiles in half the time; what depends on what stays the same.
        compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True},
    )

    def run(events: Events, weights=None):
        numbers = {name: getattr(events, name) for name in ("dense", "actions", "context")}
        weights = jnp.ones(events.segment.shape) if weights is None else jnp.asarray(weights, jnp.float32)
        (_, logits), gradients = gradient(params, numbers, events, weights)
        return np.asarray(logits), jax.tree.map(np.asarray, gradients)

    return run


def logits_of(config: ModelConfig, events: Events) -> np.ndarray:
    return compiled(config)(events)[0]


@functools.partial(jax.jit, static_argnums=0)
def logits_alone(graph, params, events: Events, dropout_key):
    return nnx.merge(graph, params)(events, dropout_key=dropout_key)


def forward(model: GenerativeRecommender):
    """The model's logits, compiled without their gradients and once for all models of one configuration."""
    graph, params = nnx.split(model)
    return lambda events, dropout_key=None: np.asarray(logits_alone(graph, params, events, dropout_key))


@functools.cache
def awake_forward(config: ModelConfig):
    return forward(awake(make(config)))


def one_user(seed: int = 0) -> Events:
    """The history of one user, the same in every row."""
    row = random_events(np.ones((1, SLOTS), np.int32), seed=seed)
    return jax.tree.map(lambda x: jnp.repeat(x, SLOTS, axis=0), row)


def mixed(base: Events, other: Events, where: np.ndarray, names=Events._fields) -> Events:
    """`base`, with the named fields of `other` where `where` [B, S] holds."""

    def mix(name):
        a, b = getattr(base, name), getattr(other, name)
        return jnp.where(where.reshape(where.shape + (1,) * (a.ndim - 2)), b, a) if name in names else a

    return Events(*(mix(name) for name in Events._fields))


def place(events: Events, source: slice, at: int, segment: int, onto: Events) -> Events:
    """`onto`, with the events of `source` in its slots from `at`, as the given segment."""
    target = slice(at, at + source.stop - source.start)
    placed = jax.tree.map(lambda x, y: y.at[:, target].set(x[:, source]), events, onto)
    return placed._replace(segment=placed.segment.at[:, target].set(segment))


def padding(seed: int) -> Events:
    """All padding, full of rubbish."""
    events = random_events(np.ones((SLOTS, SLOTS), np.int32), seed=seed)
    return events._replace(segment=jnp.zeros_like(events.segment))


ROW, SLOT = np.indices((SLOTS, SLOTS))
DIAGONAL = np.arange(SLOTS)


@every_model
def test_no_score_changes_with_later_events_or_with_actions_not_yet_taken(model):
    events, other = one_user(), one_user(seed=1)
    changed = mixed(events, other, SLOT > ROW)
    flipped = events._replace(actions=1 - events.actions)
    changed = mixed(changed, flipped, SLOT >= ROW, names=("actions",))
    before, after = (logits_of(MODELS[model], e)[DIAGONAL, DIAGONAL] for e in (events, changed))
    chex.assert_trees_all_equal(before, after, strict=True)


@every_model
def test_no_gradient_reaches_a_score_from_later_events_or_from_actions_not_yet_taken(model):
    _, (_, numbers) = compiled(MODELS[model])(one_user(), np.eye(SLOTS))
    for name, gradient in numbers.items():
        from_slot = np.abs(gradient).max(axis=-1)  # [event scored, event it depends on]
        assert np.all(from_slot[SLOT > ROW] == 0), name
    assert np.all(np.abs(numbers["actions"]).max(axis=-1)[SLOT == ROW] == 0)


@every_model
def test_every_score_depends_on_its_own_features_and_on_every_earlier_event_and_action(model):
    _, (_, numbers) = compiled(MODELS[model])(one_user(), np.eye(SLOTS))
    from_slot = {name: np.abs(gradient).max(axis=-1) for name, gradient in numbers.items()}
    assert np.all(from_slot["dense"][SLOT <= ROW] > 1e-9)
    assert np.all(from_slot["actions"][SLOT < ROW] > 1e-9)
    assert np.all(from_slot["context"][SLOT == ROW] > 1e-6)


@every_model
def test_every_score_depends_on_its_own_ids(model):
    events = one_user()
    buckets = jnp.array(SPEC.id_buckets)
    changed = mixed(events, events._replace(ids=(events.ids + 1) % buckets), SLOT == ROW)
    before, after = (logits_of(MODELS[model], e)[DIAGONAL, DIAGONAL] for e in (events, changed))
    assert np.all(np.abs(before - after).max(axis=-1) > 1e-4)


@pytest.mark.parametrize(
    ("variant", "names", "felt"),
    [
        ("none", ("position", "day", "second", "elapsed_seconds"), False),
        ("ordinal", ("day", "second", "elapsed_seconds"), False),
        ("ordinal", ("position",), True),
        ("time_order", ("elapsed_seconds",), True),
        ("siren", ("day", "second"), True),
        ("time in embedding", ("day", "second"), True),
        ("semantic", ("day", "second", "elapsed_seconds"), False),
        ("lie", ("elapsed_seconds",), True),
        ("lie", ("position",), True),
        ("time2vec", ("elapsed_seconds",), True),
        ("time2vec", ("position", "day", "second"), False),
        ("added positions", ("position",), True),
        ("added positions", ("day", "second", "elapsed_seconds"), False),
        ("alibi", ("position",), True),
        ("alibi", ("day", "second", "elapsed_seconds"), False),
        ("t5", ("position",), True),
        ("t5", ("day", "second", "elapsed_seconds"), False),
        ("hstu", ("position",), True),
        ("hstu", ("elapsed_seconds",), True),
        ("time_decay", ("elapsed_seconds",), True),
        ("time_decay", ("position", "day", "second"), False),
        ("periodic", ("elapsed_seconds",), True),
        ("periodic", ("position", "day", "second"), False),
        ("rote", ("elapsed_seconds",), True),
        ("rote", ("position", "day", "second"), False),
        ("time_scales", ("elapsed_seconds",), True),
        ("time_scales", ("position", "day", "second"), False),
        ("axes", ("position",), True),
        ("axes", ("day", "second"), True),
        ("axes of time", ("position", "elapsed_seconds"), False),
        ("pope", ("position",), True),
        ("pope", ("day", "second", "elapsed_seconds"), False),
        ("selective", ("position", "day", "second"), False),
        ("forgetting", ("position", "day", "second", "elapsed_seconds"), False),
        ("forgetting with time", ("elapsed_seconds",), True),
        ("tisasrec", ("elapsed_seconds",), True),
        ("tisasrec", ("position", "day", "second"), False),
    ],
)
def test_only_what_is_asked_for_reads_position_and_clock(variant, names, felt):
    events, other = one_user(), one_user(seed=1)
    changed = mixed(events, other._replace(position=3 * events.position), SLOT < ROW, names)
    config = dataclasses.replace(VARIANTS[variant], hide_ties=False)  # hiding ties compares times, too
    before, after = (awake_forward(config)(e)[DIAGONAL, DIAGONAL] for e in (events, changed))
    # Events 0 and 1 see at most one other, whose weight is 1 at any angle.
    assert (np.abs(before - after)[2:].max() > 1e-4) == felt


@every_model
def test_a_packed_row_scores_its_sequences_as_if_each_were_alone(model):
    config = MODELS[model]
    packed = random_events(np.array([[1, 1, 1, 2, 2, 2, 2, 0]] * SLOTS, np.int32))
    together = logits_of(config, packed)
    for first, end in ((0, 3), (3, 7)):
        alone = logits_of(config, place(packed, slice(first, end), 0, 1, onto=padding(seed=2)))
        chex.assert_trees_all_close(together[:, first:end], alone[:, : end - first], **CLOSE)


@every_model
def test_a_prefix_scores_the_same_as_inside_the_longer_history(model):
    config, events = MODELS[model], one_user()
    whole = logits_of(config, events)
    prefix = logits_of(config, place(events, slice(0, 5), 0, 1, onto=padding(seed=2)))
    chex.assert_trees_all_close(whole[:, :5], prefix[:, :5], **CLOSE)


@every_model
def test_padding_anywhere_and_of_any_content_moves_no_score(model):
    config, events = MODELS[model], one_user()
    at_start = logits_of(config, place(events, slice(0, 4), 0, 1, onto=padding(seed=2)))[:, :4]
    for slots, seed in (((0, 1, 2, 3), 3), ((4, 5, 6, 7), 2), ((1, 3, 4, 6), 4)):
        scattered = padding(seed=seed)
        for source, slot in enumerate(slots):
            scattered = place(events, slice(source, source + 1), slot, 1, onto=scattered)
        chex.assert_trees_all_close(logits_of(config, scattered)[:, list(slots)], at_start, **CLOSE)


@every_model
def test_rows_of_padding_and_first_events_give_finite_logits_and_gradients(model):
    segment = np.zeros((SLOTS, SLOTS), np.int32)
    segment[1, 0], segment[2, 3], segment[3, :5], segment[4] = 1, 1, [1, 2, 3, 4, 5], 1
    logits, gradients = compiled(MODELS[model])(random_events(segment))
    chex.assert_tree_all_finite((logits, gradients))


def test_only_padding_gives_finite_logits_and_gradients():
    logits, gradients = compiled(VARIANTS["siren"])(padding(seed=0))
    chex.assert_tree_all_finite((logits, gradients))


@every_model
def test_every_parameter_is_used(model):
    gradients = compiled(MODELS[model])(one_user())[1][0]
    # Only differences of angles matter, so a constant offset of all angles, the last biases, moves nothing.
    idle = [
        jax.tree_util.keystr(path)
        for path, gradient in jax.tree_util.tree_leaves_with_path(gradients)
        if not np.abs(gradient).max() > 1e-4
    ]
    assert all("networks" in name and "bias" in name for name in idle), idle


@pytest.mark.parametrize("fusion", ["mixed_value", "late", "interleaved"])
def test_with_ties_hidden_events_of_one_second_do_not_see_each_other(fusion):
    config = small_config(hide_ties=True, action_fusion=fusion)
    events = one_user()
    tied = events._replace(elapsed_seconds=events.elapsed_seconds.at[:, 3:6].set(events.elapsed_seconds[:, 3:4]))
    _, (_, numbers) = compiled(config)(tied, np.eye(SLOTS))
    for name in ("dense", "actions"):
        from_slot = np.abs(numbers[name]).max(axis=-1)
        for event in (3, 4, 5):
            others = [slot for slot in (3, 4, 5) if slot != event]
            assert np.all(from_slot[event, others] == 0), name
            assert np.all(from_slot[event, :3] > 1e-9), name
        assert np.all(from_slot[6, :6] > 1e-9), name


@every_model
def test_events_of_one_second_may_stand_in_any_slots(model):
    config, events = MODELS[model], one_user()
    position = jnp.asarray([0, 1, 2, 3, 3, 3, 6, 7])
    tied = events._replace(
        position=jnp.broadcast_to(position, events.position.shape),
        **{name: getattr(events, name).at[:, 3:6].set(getattr(events, name)[:, 3:4]) for name in TIME},
    )
    order = np.array([0, 1, 2, 5, 3, 4, 6, 7])
    before, after = logits_of(config, tied), logits_of(config, jax.tree.map(lambda x: x[:, order], tied))
    # Interleaved, an action sees events of its own second before it, and later events see the action: there the data
    # puts events of one second in an order of its own (data.event_order).
    compared = slice(0, 6) if config.action_fusion == "interleaved" else slice(None)
    chex.assert_trees_all_close(before[:, order][:, compared], after[:, compared], **CLOSE)


@pytest.mark.parametrize("fusion", ["mixed_value", "late"])
def test_events_too_close_before_another_are_hidden_from_it(fusion):
    events = one_user()
    times = jnp.broadcast_to(jnp.asarray([0, 100, 200, 250, 300, 400, 401, 1000]), events.segment.shape)
    config = small_config(small_rotary("time_scales"), hide_within=100, action_fusion=fusion)
    _, (_, numbers) = compiled(config)(events._replace(elapsed_seconds=times), np.eye(SLOTS))
    seen = np.asarray(times)[0][:, None] - np.asarray(times)[0] >= 100
    for name in ("dense", "actions"):
        from_slot = np.abs(numbers[name]).max(axis=-1)
        others = SLOT != ROW
        chex.assert_trees_all_equal((from_slot > 1e-9)[others], seen[others], strict=True)


def test_blocks_without_rotation_read_no_position():
    events, other = one_user(), one_user(seed=1)
    moved = events._replace(position=other.position * 3 + 1)
    for every, felt in ((None, True), (2, True), (1, False)):
        config = small_config(small_rotary("ordinal"), layers=2, nope_every=every)
        model = awake(make(config))
        model.action_attention.output.kernel[...] *= 0
        run = forward(model)
        assert (np.abs(run(events) - run(moved)).max() > 1e-4) == felt


@pytest.mark.parametrize(("temperature", "learned"), [("log_length", 1.0), ("learned_log_length", 3.0)])
def test_attention_sharpens_with_the_logarithm_of_the_events_that_are_seen(temperature, learned):
    events = one_user()
    x = jax.random.normal(jax.random.key(2), (*events.segment.shape, 8))
    plain, sharp = (
        make(small_config(small_rotary("none"), temperature=name)).blocks[0].attention
        for name in ("fixed", temperature)
    )
    if sharp.temperature is not None:
        sharp.temperature[...] = jnp.full(2, learned)
    weights, found = (
        np.asarray(attention.weights(x, events, events.elapsed_seconds, None)) for attention in (plain, sharp)
    )
    power = learned * np.log(np.maximum(np.arange(SLOTS), 1)) / np.log(SPEC.window)
    expected = np.where(weights > 0, weights, 1) ** power[:, None] * (weights > 0)
    total = expected.sum(-1, keepdims=True)
    chex.assert_trees_all_close(found, expected / np.where(total > 0, total, 1), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fusion", ["mixed_value", "interleaved"])
def test_without_ties_hiding_them_changes_nothing(fusion):
    events = one_user()
    hiding, showing = (logits_of(small_config(hide_ties=hide, action_fusion=fusion), events) for hide in (True, False))
    chex.assert_trees_all_close(hiding, showing, **CLOSE)


def test_bfloat16_stays_finite_and_close_to_float32():
    config, events = VARIANTS["siren"], one_user()
    exact = logits_of(config, events)
    logits, gradients = compiled(dataclasses.replace(config, dtype="bfloat16"))(events)
    chex.assert_type([logits, *jax.tree.leaves(gradients[0])], np.float32)
    chex.assert_tree_all_finite((logits, gradients[0]))
    assert np.any(logits != exact)
    # Eight bits of mantissa through about ten layers.
    assert np.abs(logits - exact).max() < 0.05 * np.abs(exact).max()


@functools.cache
def parameters(config: ModelConfig, seed: int = 0) -> dict[str, np.ndarray]:
    """Every parameter by its path, but those that tell position and time."""
    state = nnx.to_flat_state(nnx.state(make(config, seed)))
    named = {"/".join(map(str, path)): value for path, value in state}
    telling = re.compile("rotary/|time_inputs/|added_encodings/|.*attention/bias/")
    return {name: np.asarray(value[...]) for name, value in named.items() if not telling.match(name)}


@every_variant
def test_everything_but_the_rotation_starts_alike_for_one_seed(variant):
    chex.assert_trees_all_equal(parameters(VARIANTS["ordinal"]), parameters(VARIANTS[variant]), strict=True)


def test_everything_that_is_drawn_starts_differently_for_another_seed():
    first, second = parameters(VARIANTS["siren"]), parameters(VARIANTS["siren"], seed=1)
    start_at_zero = {"head/layers/1/kernel", "context/linear/kernel", "context/network/layers/2/kernel"}
    drawn = {name for name, value in first.items() if np.ptp(value) > 0 and not name.startswith("head/layers/1/b")}
    assert {name for name in first if name.endswith(("kernel", "embedding"))} - start_at_zero == drawn
    for name in drawn:
        assert np.mean(first[name] == second[name]) < 0.01, name


def test_the_angle_network_starts_differently_for_another_seed():
    rotaries: list[Any] = [make(VARIANTS["siren"], seed).rotary for seed in (0, 1)]
    first, second = (rotary.networks[0].get_value() for rotary in rotaries)
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert not np.any(a == b)


def test_the_dropout_stream_is_the_same_for_every_rotation():
    events = one_user()
    inert = small_config(small_rotary("siren", initial_scale=0.0), dropout=0.5, id_dropout=0.5)
    ordinal = small_config(small_rotary("ordinal"), dropout=0.5, id_dropout=0.5)
    of_inert, of_ordinal = (forward(heard(make(config))) for config in (inert, ordinal))
    a, b, other_key = (run(events, jax.random.key(k)) for run, k in ((of_inert, 3), (of_ordinal, 3), (of_ordinal, 4)))
    chex.assert_trees_all_close(a, b, **CLOSE)
    assert np.abs(a - other_key).max() > 1e-2


@pytest.mark.parametrize("which", ["dropout", "context_dropout", "id_dropout"])
def test_each_dropout_acts_in_training_only(which):
    none = {"dropout": 0.0, "context_dropout": 0.0, "id_dropout": 0.0}
    config, without = small_config(**(none | {which: 0.5})), small_config(**none)
    events, key = one_user(), jax.random.key(0)
    model, unchanged = forward(heard(make(config))), forward(heard(make(without)))
    chex.assert_trees_all_equal(model(events), unchanged(events), strict=True)
    chex.assert_trees_all_close(unchanged(events, key), unchanged(events), **CLOSE)
    assert np.abs(model(events, key) - model(events)).max() > 1e-2


@pytest.mark.parametrize("features", [True, False])
def test_dense_and_narrow_columns_of_the_event_itself_act_through_the_skip_unless_the_setting_is_off(features):
    model, events = make(small_config(head_features=features)), one_user()
    model.context.linear.kernel[...] = jnp.ones_like(model.context.linear.kernel[...])
    model.context.linear.kernel[:3] = jnp.zeros((3, 2))  # counters
    model.context.linear.kernel[-4:] = jnp.zeros((4, 2))  # calendar
    start = np.broadcast_to(np.log(RATES) - np.log1p(-np.asarray(RATES)), (*events.segment.shape, 2))
    told = events.dense.sum(-1) + (events.ids[..., 1] > 0)  # an unknown value is none of those that training knew
    chex.assert_trees_all_close(forward(model)(events), start + (told[..., None] if features else 0), **CLOSE)


def test_predictions_start_at_the_base_rates():
    model, events = make(small_config()), one_user()
    start = np.asarray(jax.nn.sigmoid(forward(model)(events)))
    chex.assert_trees_all_close(start, np.broadcast_to(RATES, start.shape), rtol=1e-6)


def test_history_counters_act_linearly_unless_the_skip_is_off():
    model, events = make(small_config()), one_user()
    model.head.layers[0].kernel[...] *= 0
    before = forward(model)(events)
    model.context.linear.kernel[:2] = jnp.array([[1.0, 0], [0, 2]])
    expected = before + np.asarray(events.context)[..., :2] * [1, 2]
    chex.assert_trees_all_close(forward(model)(events), expected, **CLOSE)
    assert make(small_config(context_skip=False)).context is None


@every_variant
def test_the_hour_of_the_event_itself_reaches_its_score_with_any_rotation_unless_the_setting_is_off(variant):
    # Events without a history: a rotation has nothing to relate them to.
    alone = random_events(np.tile(np.arange(1, SLOTS + 1), (SLOTS, 1)))
    later = alone._replace(second=(alone.second + 6 * 3600) % 86_400)
    config = VARIANTS[variant]
    assert config.head_calendar
    moved = np.abs(logits_of(config, later) - logits_of(config, alone)).max(axis=-1)
    assert moved.min() > 1e-3
    silent = awake_forward(dataclasses.replace(config, head_calendar=False))
    moved = np.abs(silent(later) - silent(alone)).max(axis=-1)
    assert moved.min() > 1e-3 if "calendar" in config.encodings else moved.max() == 0


def test_without_the_head_calendar_all_else_starts_alike():
    with_it, without = (dict(parameters(small_config(head_calendar=on))) for on in (True, False))
    for name in ("head/layers/0/kernel", "context/linear/kernel"):
        with_it[name] = with_it[name][:-4]
    for parameters_ in (with_it, without):
        del parameters_["context/network/layers/0/kernel"]  # of other inputs
    chex.assert_trees_all_close(with_it, without, rtol=0, atol=0)


def test_the_attention_and_residual_scales_of_the_configuration_are_used():
    events = one_user()

    def logits(**changes):
        return awake_forward(small_config(**changes))(events)

    base = logits()
    chex.assert_trees_all_close(logits(attention_scale=4**-0.5), base, **CLOSE)
    assert np.abs(logits(attention_scale=0.025) - base).max() > 1e-2
    assert np.abs(logits(residual_scale=0.1) - base).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 10}, "width must be a multiple of twice the heads, but is 10 for 2 heads"),
        ({"width": 4, "heads": 4}, "width must be a multiple of twice the heads, but is 4 for 4 heads"),
        ({"heads": 0}, r"heads must lie in \[1, inf\), but is 0"),
        ({"layers": -1}, r"layers must lie in \[0, inf\), but is -1"),
        ({"rotary": small_rotary("siren", metadata=("colour",))}, "but 'colour' is not one"),
        ({"key_heads": 3}, "heads must be a multiple of key_heads, but are 2 for 3"),
        ({"layers": 0, "action_fusion": "interleaved"}, "layers must be at least 1"),
        ({"hide_within": 60, "hide_ties": False}, "hide_within must be given with hide_ties"),
        ({"hide_within": 60, "action_fusion": "interleaved"}, "hide_within must be given with hide_ties and without"),
        ({"hide_within": -1}, r"hide_within must lie in \[0, 2147483647\], but is -1"),
        (
            {"hide_within": 60, "rotary": small_rotary("selective")},
            "hide_within must be 0 with rotary.kind selective, which depends on hidden events too, but is 60",
        ),
        ({"hide_within": 60, "bias": small_bias("forgetting")}, "hide_within must be 0 with bias.kind forgetting"),
        ({"hide_within": 60, "bias": small_bias("tisasrec")}, "hide_within must be 0 with bias.kind tisasrec"),
        ({"nope_every": 1, "action_fusion": "interleaved"}, "nope_every must be at least 2 with action_fusion"),
        ({"nope_every": 2}, "nope_every must be at most the 1 layers"),
        ({"nope_every": 1, "rotary": small_rotary("none")}, "nope_every must be at most the 1 layers, and given with"),
        (
            {"rotary": small_rotary("pope"), "bias": small_bias("tisasrec")},
            "bias.kind must not be tisasrec with rotary.kind pope",
        ),
        (
            {"rotary": small_rotary("siren", separate_action_network=True), "action_fusion": "interleaved"},
            "separate_action_network off",
        ),
        ({"rotary": small_rotary("none", base=3.0)}, "rotary.base must be left at 10000.0 with rotary.kind none"),
        ({"rotary": small_rotary("rote", base=3.0)}, "rotary.base must be left at 10000.0 with rotary.kind rote"),
        (
            {"rotary": RotaryConfig("axes", base=3.0, axes=AxesSettings(("day", "week")))},
            "rotary.base must be left at 10000.0 with rotary.kind axes, which reads no position, and without",
        ),
        ({"encodings": ("learned", "learned")}, r"encodings must each be given once, but are \('learned', 'learned'\)"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused_in_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make(small_config(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("encoding", ["learned", "sinusoidal", "calendar", "time2vec"])
def test_interleaved_actions_are_told_position_and_time_too(encoding):
    """With one layer and no rotation, only the encodings can tell whose action came first."""
    config = small_config(small_rotary("none"), encodings=(encoding,), action_fusion="interleaved")
    model, events = awake_forward(config), one_user()
    actions = events.actions.at[:, 0].set(0).at[:, 1].set(1)
    swapped = actions.at[:, 0].set(1).at[:, 1].set(0)
    before, after = (model(events._replace(actions=a))[0, 5] for a in (actions, swapped))
    assert np.abs(before - after).max() > 1e-4


def test_a_model_without_tasks_is_refused():
    with pytest.raises(ValueError, match="one number per task, but are empty"):
        GenerativeRecommender(small_config(), SPEC, (), key=jax.random.key(0))
