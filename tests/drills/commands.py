"""Runs `siren-rope` commands one after the other in one process: a line of JSON in, a line of JSON out."""

import contextlib
import io
import json
import sys

from siren_rope_jax.cli import main

for line in sys.stdin:
    said, code = io.StringIO(), 0
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(json.loads(line))
        except SystemExit as ended:
            code = ended.code
    print(json.dumps([code, said.getvalue()]), flush=True)
