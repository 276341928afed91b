"""What every drill needs, and the table of drills at the end."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.table import Table
from trainer import TINY, Trainer

from siren_rope_jax.report.tables import make_console


@dataclasses.dataclass
class Tally:
    """Counts what one drill tries and what of it holds."""

    runs: int = 0
    passed: int = 0

    @contextlib.contextmanager
    def run(self) -> Iterator[None]:
        """One fault and everything that must hold after it."""
        self.runs += 1
        yield
        self.passed += 1


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Iterator[Tally]:
    """The tally of this drill, for the table."""
    tally = Tally()
    yield tally
    title = request.node.get_closest_marker("drill").args[0]
    request.node.user_properties.append(("drill", [title, tally.runs, tally.passed]))


@pytest.fixture(scope="session")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """Starts commands; nothing that it started outlives the drills."""
    trainer = Trainer(tmp_path_factory.mktemp("trainer"))
    yield trainer
    trainer.close()


@pytest.fixture(scope="session")
def feed(trainer: Trainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A simulated log."""
    folder = tmp_path_factory.mktemp("feed")
    trainer.run("simulate", "--out", folder, "--users", "60")
    return folder / "log.toml"


@pytest.fixture(scope="session")
def reference(trainer: Trainer, feed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of one process and one device that nothing disturbs."""
    run = tmp_path_factory.mktemp("reference") / "run"
    trainer.run("train", feed, "--out", run, *TINY)
    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints drill, runs and passed."""
    reports = [report for kind in terminalreporter.stats.values() for report in kind if hasattr(report, "when")]
    rows = [
        value
        for report in reports
        if report.when == "teardown"
        for name, value in report.user_properties
        if name == "drill"
    ]
    if not rows:
        return
    table = Table("drill", "runs", "passed")
    for title, runs, passed in rows:
        table.add_row(title, str(runs), str(passed))
    table.add_section()
    table.add_row("all", str(sum(row[1] for row in rows)), str(sum(row[2] for row in rows)))
    make_console().print(table)
