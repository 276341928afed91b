"""Host side: event logs, the simulated feed, leak-free counters and packed grain batches."""

from siren_rope_jax.data.batches import BatchConfig, PackedRows, batches, make_rows
from siren_rope_jax.data.encode import Encoded, Encoder, InputConfig
from siren_rope_jax.data.event_log import EventLog, read_event_log
from siren_rope_jax.data.flights import prepare_flights
from siren_rope_jax.data.movielens import prepare_movielens
from siren_rope_jax.data.noshow import prepare_noshow
from siren_rope_jax.data.reviews import prepare_reviews
from siren_rope_jax.data.schema import EventLogSpec
from siren_rope_jax.data.side_table_spec import SideTable
from siren_rope_jax.data.signals import BinarySignal, ContinuousSignal, Signal
from siren_rope_jax.data.simulator import SimulatorConfig, simulate, write_simulated_log
from siren_rope_jax.data.sources import prepare_deskdrop, prepare_kuairand_pure
from siren_rope_jax.data.split import Split

__all__ = [
    "BatchConfig",
    "BinarySignal",
    "ContinuousSignal",
    "Encoded",
    "Encoder",
    "EventLog",
    "EventLogSpec",
    "InputConfig",
    "PackedRows",
    "SideTable",
    "Signal",
    "SimulatorConfig",
    "Split",
    "batches",
    "make_rows",
    "prepare_deskdrop",
    "prepare_flights",
    "prepare_kuairand_pure",
    "prepare_movielens",
    "prepare_noshow",
    "prepare_reviews",
    "read_event_log",
    "simulate",
    "write_simulated_log",
]
