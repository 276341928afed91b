"""Tables for the terminal: memory and transfers of a compiled program."""

import collections
from collections.abc import Sequence
from typing import Any

from rich.table import Table

from tpu.compiled import Collective, Program


def memory_table(program: Program, about: dict[str, Any]) -> Table:
    """Lays out memory and work of each device in a step.

    Args:
      program: the train step.
      about: topology, slices, mesh, bytes of `capacity`, and the seconds that compiling took.
    """
    mesh = " x ".join(f"{size} {name}" for name, size in about["mesh"].items())
    table = Table("of each device", f"{about['slices']} x {about['topology']}", title=f"mesh {mesh}")
    table.add_row("memory that it has", _gib(about["capacity"]))
    table.add_row("memory that is needed", f"{_gib(program.needed)} ({program.needed / about['capacity']:.0%})")
    table.add_row("  arguments", _gib(program.arguments))
    table.add_row("  temporaries", _gib(program.temporaries))
    table.add_row("  program", _gib(program.code))
    table.add_row("  outputs", f"{_gib(program.outputs)}, of which {_gib(program.donated)} in donated arguments")
    table.add_row("floating-point operations", f"{program.flops:.3g}")
    table.add_row("Pallas kernels", str(program.kernels))
    table.add_row("seconds to compile", f"{about['seconds']:.0f}")
    return table


def collectives_table(collectives: Sequence[Collective]) -> Table:
    """Lays out number and bytes of the collectives of each kind, the most bytes first."""
    table = Table("collective", "network", "number", "MiB in all", "MiB of the largest")
    sizes: dict[tuple[str, str], list[int]] = bytes_by_kind(collectives)
    for (kind, network), each in sorted(sizes.items(), key=lambda item: -sum(item[1])):
        table.add_row(kind, network, str(len(each)), f"{sum(each) / 2**20:.2f}", f"{max(each) / 2**20:.2f}")
    return table


def bytes_by_kind(collectives: Sequence[Collective]) -> dict[tuple[str, str], list[int]]:
    """Groups the bytes of each collective by kind and network."""
    sizes = collections.defaultdict(list)
    for collective in collectives:
        sizes[collective.kind, collective.network].append(collective.bytes)
    return dict(sizes)


def _gib(size: int) -> str:
    return f"{size / 2**30:.3f} GiB"
