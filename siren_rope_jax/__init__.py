"""SIREN-RoPE in JAX: rotary angles learned from when things happened.

Importing the package pulls in nothing; `siren_rope_jax.ops` needs jax and numpy alone.
"""

__version__ = "0.6.0"
