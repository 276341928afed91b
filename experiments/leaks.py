"""What does the leak audit find on the logs that are shipped? `siren-rope audit`, log after log.

Command: `siren-rope simulate --out runs/feed --users 2000`, `siren-rope prepare ...` as in the README, then
`python experiments/leaks.py runs/feed/log.toml runs/deskdrop-log/log.toml runs/kuairand-log/log.toml --out runs/leaks`.
Cost: COST
Expected: FOUND
"""

import dataclasses
import sys
from pathlib import Path

import tyro

from siren_rope_jax.data.schema import InputError
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
