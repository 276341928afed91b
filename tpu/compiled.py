"""Memory and transfers of a program compiled for TPUs, read from the compiler's own account."""

import dataclasses
import math
import re
from typing import Any

_KINDS = "all-gather|all-reduce|all-to-all|collective-broadcast|collective-permute|ragged-all-to-all|reduce-scatter"
_WITHIN_SLICE = re.compile(rf" = (?P<result>.*?) (?P<kind>{_KINDS})(?P<start>-start)?\(")
_BETWEEN_SLICES = re.compile(r' = \((?P<result>.*?), u32\[\].* send\(.*_xla_megascale_transfer_type="(?P<kind>\w+)"')
_CHANNEL = re.compile(r"channel_id=(\d+)")
_SHAPE = re.compile(r"\b(pred|bf16|[a-z](\d+)\w*)\[([\d,]*)\]")
_WANTED = re.compile(r"\(([\d.]+)([KMG])\) exceeds available HBM|Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between devices."""

    kind: str
    network: str
    """ICI within a slice, DCN between slices."""
    bytes: int
    """Size of its result on each device (of a reduce-scatter: before it scatters); between slices, the size sent."""


@dataclasses.dataclass(frozen=True)
class Program:
    """Memory, work and transfers of each device for one call."""

    arguments: int
    """Bytes of the state and of the device's share of the batch."""
    temporaries: int
    outputs: int
    donated: int
    """Bytes of the outputs that take the place of arguments."""
    code: int
    peak: int
    """Most bytes that are alive at one time, arguments among them; donated ones that are overwritten
    count as their new content. The compiler compares this with the memory available, not the sum of the parts."""
    flops: float
    """Operations as the compiler counts them: the body of a loop once, and a kernel by its own estimate."""
    kernels: int
    """Calls of Pallas kernels."""
    collectives: tuple[Collective, ...]

    @property
    def needed(self) -> int:
        """Bytes of memory."""
        return self.peak + self.code


def read_program(compiled: Any) -> Program:
    """Reads a `jax.stages.Compiled` that was compiled for TPUs."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    return Program(
        arguments=memory.argument_size_in_bytes,
        temporaries=memory.temp_size_in_bytes,
        outputs=memory.output_size_in_bytes,
        donated=memory.alias_size_in_bytes,
        code=memory.generated_code_size_in_bytes,
        peak=memory.peak_memory_in_bytes,
        flops=float(compiled.cost_analysis()["flops"]),
        kernels=text.count('custom_call_target="tpu_custom_call"'),
        collectives=find_collectives(text),
    )


def find_collectives(text: str) -> tuple[Collective, ...]:
    """Finds the collectives in the text of a compiled program.

    The compiler splits one that spans slices into one within each and a send by the hosts. It repeats one that runs
    beside several computations in each of them, under one channel, and writes a reduce-scatter as the all-reduce in a
    computation of that name.

    Args:
      text: as `Compiled.as_text` returns it.

    Returns:
      Each of them once, also in the body of a loop: long rings of permutes send more than is counted.
    """
    found: dict[tuple[str, str], Collective] = {}
    computation = ""
    for line in text.splitlines():
        if not line.startswith(" "):
            computation = line.partition(" (")[0]
        channel = _CHANNEL.search(line)
        key = channel[1] if channel else line
        if within := _WITHIN_SLICE.search(line):
            kind, result = within["kind"], within["result"]
            if kind == "collective-permute" and within["start"]:
                # Its result holds what it takes, what it gives, and two handles.
                size = shape_bytes(result.replace("u32[]", "")) // 2
            else:
                size = shape_bytes(result)
            if kind == "all-reduce" and "reduce-scatter" in computation:
                kind = "reduce-scatter"
            found.setdefault(("ICI", key), Collective(kind, "ICI", size))
        elif between := _BETWEEN_SLICES.search(line):
            kind = between["kind"].lower().replace("_", "-")
            found.setdefault(("DCN", key), Collective(kind, "DCN", shape_bytes(between["result"])))
    return tuple(found.values())


def shape_bytes(shapes: str) -> int:
    """Counts the bytes of all arrays in a type such as "(f32[8,128]{1,0}, pred[])"."""
    bits = {"pred": 8, "bf16": 16}
    return (
        sum(
            (bits.get(kind) or int(width)) * math.prod(int(size) for size in sizes.split(",") if size)
            for kind, width, sizes in _SHAPE.findall(shapes)
        )
        // 8
    )


def memory_wanted(message: str) -> int | None:
    """Reads the bytes needed on each device from the message of too little memory; None for another message."""
    wanted = _WANTED.search(message)
    if wanted is None:
        return None
    number, unit = wanted[1] or wanted[3], wanted[2] or wanted[4]
    return round(float(number) * _UNITS[unit])
