"""Settings outside their intervals are refused in one sentence; those inside are left alone."""

import dataclasses
import re
import typing

import pytest
import tyro
from one_sentence import raises_one_sentence

from siren_rope_jax.data.encode import InputConfig
from siren_rope_jax.data.simulator import SimulatorConfig
from siren_rope_jax.nn.bias import BIASES, BiasConfig, PeriodicSettings, T5Settings, TisasrecSettings
from siren_rope_jax.nn.config import ModelConfig
from siren_rope_jax.nn.encodings import ENCODINGS
from siren_rope_jax.nn.rotary import ROTARIES, LieSettings, RotaryConfig, SirenSettings, TimeOrderSettings
from siren_rope_jax.settings import check_settings
from siren_rope_jax.train.config import TrainConfig
from siren_rope_jax.train.optimizer import OptimizerConfig

NAN = float("nan")


@dataclasses.dataclass(frozen=True)
class Settings:
    rate: float = 0.0
    widths: tuple[int, ...] = (1, 2)
    scale: float | None = None


def test_ends_belong_to_an_interval_as_its_brackets_say():
    check_settings(Settings(rate=0.0), rate="[0, 1)", widths="[1, 2]", scale="(0, inf)")
    for value, interval in ((1.0, "[0, 1)"), (0.0, "(0, 1)"), (NAN, "[-inf, inf]"), (-0.1, "[0, 1]")):
        with raises_one_sentence("rate", interval, str(value)):
            check_settings(Settings(rate=value), rate=interval)
    with raises_one_sentence("widths", "[2, inf)", "1"):
        check_settings(Settings(), widths="[2, inf)")


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (ModelConfig, "width", -8),
        (ModelConfig, "width", 10),
        (ModelConfig, "layers", -1),
        (ModelConfig, "dropout", 1.0),
        (ModelConfig, "id_dropout", NAN),
        (ModelConfig, "embedding_dim", 0),
        (ModelConfig, "head_widths", (0,)),
        (ModelConfig, "action_widths", (-3,)),
        (ModelConfig, "feed_forward", float("inf")),
        (ModelConfig, "attention_scale", NAN),
        (ModelConfig, "hide_within", 5.5),
        (ModelConfig, "heads", True),
        (ModelConfig, "head_widths", (8, 2.5)),
        (ModelConfig, "temperature", "log"),
        (ModelConfig, "encodings", ("calendar", "fourier")),
        (PeriodicSettings, "periods", ("month",)),
        (RotaryConfig, "base", 0.5),
        (SirenSettings, "omega0", 0.0),
        (SirenSettings, "branches", ()),
        (SirenSettings, "span_factor", 0.25),
        (LieSettings, "block_size", 1),
        (RotaryConfig, "partial", 0.0),
        (RotaryConfig, "xpos_base", -1.0),
        (RotaryConfig, "content_bound", NAN),
        (TimeOrderSettings, "time_share", 1.0),
        (T5Settings, "max_distance", 16),
        (T5Settings, "buckets", 1),
        (TisasrecSettings, "max_interval", 3_000_000_000),
        (InputConfig, "counter_smoothing", NAN),
        (InputConfig, "item_buckets", 0),
        (OptimizerConfig, "learning_rate", NAN),
        (OptimizerConfig, "warmup", 1.0),
        (OptimizerConfig, "b2", 1.0),
        (SimulatorConfig, "kernel", "monthly"),
        (TrainConfig, "seed", -1),
        (TrainConfig, "seed", 2**32),
        (TrainConfig, "epochs", 0.0),
        (TrainConfig, "task_weights", (0.0, 0.0)),
    ],
)
def test_a_value_that_would_train_nonsense_is_refused(cls, name, value):
    with raises_one_sentence(name):
        cls(**{name: value})


def test_a_setting_that_the_chosen_bias_does_not_read_is_refused_by_its_path():
    with raises_one_sentence("bias.t5.buckets must be left at 32 with bias.kind hstu, but is 4"):
        BiasConfig("hstu", t5=T5Settings(buckets=4))
    with raises_one_sentence("bias.tisasrec.max_interval", "bias.kind none"):
        BiasConfig(tisasrec=TisasrecSettings(9))
    with raises_one_sentence(
        "bias.kind must be one of none, alibi, t5, hstu, time_decay, periodic, forgetting, tisasrec, but is kerple"
    ):
        BiasConfig("kerple")
    assert BiasConfig("t5", t5=T5Settings(buckets=4)).t5.buckets == 4


@pytest.mark.parametrize(("config", "kinds"), [(RotaryConfig, ROTARIES), (BiasConfig, BIASES)])
def test_the_command_line_names_every_kind_and_the_settings_of_each(config, kinds, capsys):
    with pytest.raises(SystemExit):
        tyro.cli(config, args=["--help"])
    shown = re.sub(r"[│\s]+", " ", capsys.readouterr().out)
    described = shown[shown.index("--kind") :]
    for kind in kinds:
        assert re.search(rf"\b{kind}\b", described.partition(" --")[0] or described), kind
        own = getattr(config(kind), kind, None)
        for field in dataclasses.fields(own) if own else ():
            assert f"--{kind}.{field.name}".replace("_", "-") in shown


def test_the_encodings_that_the_command_line_takes_are_those_of_the_table():
    names, _ = typing.get_args(typing.get_type_hints(ModelConfig)["encodings"])
    assert typing.get_args(names) == tuple(ENCODINGS)
