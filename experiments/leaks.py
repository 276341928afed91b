"""Runs the leak audit, `siren-rope audit`, on each of the logs that are shipped.

Command: `siren-rope simulate --out runs/feed --users 2000`, `siren-rope prepare ...` as in README.md here, then
`python experiments/leaks.py runs/feed/log.toml runs/deskdrop-log/log.toml runs/kuairand-log/log.toml --out runs/leaks`.
Cost: 2 minutes of CPU time for each log, including 8 small models of 200 steps.
Expected: no leak, and no column to look at. (jax 0.10.2, 2 cores of an x86-64 server, 2026-11-26.)

                                            feed             Deskdrop         KuaiRand-Pure
    events that share user and second       .00 %            .66 %            1.89 %
    planted outcomes, test AUC              .486 to .506     .494 to .506     .479 to .524
      the farthest, in standard errors      -1.3             -0.7             +2.3
    the future flipped; removed             0; 0             0; 0             0; 0
    training inputs after the same          unchanged        unchanged        unchanged
    rows permuted; milliseconds             0; 0             0; 0             0; 0
    from a file; alone; candidates          0; 8e-8; 0       0; 1e-7; 1e-8    0; 2e-7; 2e-8
    column that knows most of the future    quality, .35     device, .13      tag, .17

A planted column of whole-log rates or counts correlates by .60 to .94 on these logs; the audit flags a column from .4
on. Deskdrop's views that share a second have a long dwell in 21 % of the cases, the others in 74 %.
"""

import dataclasses
import sys
from pathlib import Path

import tyro

from siren_rope_jax.errors import InputError
from siren_rope_jax.report.tables import audit_table, make_console
from siren_rope_jax.train.audit import audit, read_subject
from siren_rope_jax.train.durable import write_json


@dataclasses.dataclass(frozen=True)
class Leaks:
    """Audit logs or runs one after the other."""

    subjects: tyro.conf.Positional[tuple[Path, ...]]
    """TOML files that describe logs, or folders of runs."""
    out: Path
    """Folder for the findings, as JSON."""


def main(arguments: list[str] | None = None) -> None:
    """Runs the command; it exits with 2 for bad input."""
    settings, console = tyro.cli(Leaks, args=arguments), make_console()
    settings.out.mkdir(parents=True, exist_ok=True)
    found = {}
    for subject in settings.subjects:
        try:
            found[str(subject)] = list(audit(*read_subject(subject)))
        except InputError as error:
            print(f"leaks: {error}", file=sys.stderr)
            sys.exit(2)
        console.print(f"{subject}:", audit_table(found[str(subject)]))
    plain = {subject: [dataclasses.asdict(finding) for finding in findings] for subject, findings in found.items()}
    write_json(settings.out / "leaks.json", plain)


if __name__ == "__main__":
    main()
