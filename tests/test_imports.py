"""What may import what: the functions stand alone, and each floor of the package uses only those below it."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "siren_rope_jax"

OPS_ALONE = """
import importlib.abc, sys
import jax, jaxlib, jaxtyping, numpy as np
import jax.numpy as jnp

jnp.zeros(1) + 1  # starts the backend, which looks for plugins
assert not {"flax", "polars", "optax", "grain"} & set(sys.modules)
ALLOWED = {name.partition(".")[0] for name in sys.modules} | set(sys.stdlib_module_names)
ALLOWED |= {"jax", "jaxlib", "scipy"}  # jax needs scipy and imports parts of all three late

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        top, _, rest = name.partition(".")
        ours = top == "siren_rope_jax" and rest.split(".")[0] in ("", "ops")
        if not ours and top not in ALLOWED:
            raise ImportError(f"{name} is blocked")

sys.meta_path.insert(0, Block())
for blocked in ("flax", "polars", "siren_rope_jax.nn"):
    try:
        __import__(blocked)
    except ImportError as error:
        assert str(error) == f"{blocked} is blocked"
    else:
        raise AssertionError(f"{blocked} was not blocked")

import siren_rope_jax.ops as ops

day, second = ops.split_unix_time(np.array([[1_700_000_000]]))
angles = ops.ordinal_angles(jnp.asarray(day), ops.inverse_frequencies(4))
print(ops.apply_rotary(jnp.ones((1, 1, 1, 4)), angles).shape)
"""


@pytest.mark.slow
def test_ops_need_nothing_but_jax_numpy_and_jaxtyping():
    finished = subprocess.run([sys.executable, "-c", OPS_ALONE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "(1, 1, 1, 4)"


# Lowest first; those on one floor do not know each other. interop is the nn of the authors' weights.
FLOORS = [
    {"errors"},
    {"ops", "settings", "batch"},
    {"nn", "data"},
    {"train", "interop"},
    {"report"},
    {"log_commands"},
    {"commands"},
    {"cli"},
    {"__main__"},
]
HEIGHT = {name: height for height, floor in enumerate(FLOORS) for name in floor}


def own_imports(file, package=()):
    """Names of our modules that a file imports anywhere in it, `from` and relative imports resolved."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("siren_rope_jax"))
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            module = ".".join([*above, *([node.module] if node.module else [])])
            if module == "siren_rope_jax":
                yield from (f"{module}.{alias.name}" for alias in node.names)
            elif module.startswith("siren_rope_jax."):
                yield module


def floor_of(module):
    return module.split(".")[1]


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("file", MODULES, ids=[str(file.relative_to(PACKAGE)) for file in MODULES])
def test_module_imports_only_from_its_own_part_or_from_floors_below(file):
    parts = file.relative_to(ROOT).with_suffix("").parts
    imported = {floor_of(module) for module in own_imports(file, parts[:-1])} - {"__version__"}
    if parts == ("siren_rope_jax", "__init__"):
        return  # tests/test_public_door.py shows that it imports nothing by itself
    own = parts[1]
    assert own in HEIGHT, f"{own} has no floor: give it one in FLOORS"
    too_high = {name for name in imported - {own} if HEIGHT[name] >= HEIGHT[own]}
    assert too_high == set()


def test_the_walk_over_imports_sees_every_form(tmp_path):
    file = tmp_path / "module.py"
    file.write_text(
        "import siren_rope_jax.train.loop\n"
        "from siren_rope_jax import cli\n"
        "from siren_rope_jax.data.schema import EventLogSpec\n"
        "def late():\n"
        "    from ..nn import features\n"
        "    from . import rotary\n"
        "    import numpy\n"
    )
    found = {floor_of(module) for module in own_imports(file, ("siren_rope_jax", "ops"))}
    assert found == {"train", "cli", "data", "nn", "ops"}
