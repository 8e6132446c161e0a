"""Measure, print a table, write `bench/last.json`. About seven minutes; `--only accept`, `crowd`, `line` or
`stores` for a part.

The two sides of a pair run in turn, on the same pictures, the same disk and the same sync setting; figures are medians
of the rounds. Both share the machine with their client.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench import accept, crowd, line, stores
from bench.measure import BUSY, Comparison, machine
from bench.servers import ROOT

RESULT = ROOT / "bench" / "last.json"
AIMS = {
    "accept_small": 0.7,
    "accept_large": 0.7,
    "line": 0.8,
    "store_filesystem_20k": 0.8,
    "store_filesystem_5m": 0.8,
    "store_range": 0.8,
    "store_s3_parallel": 2,
}
"""Where there is none, two things stand beside each other for whoever has to choose."""
AIM_GROWTH_MIB = 32
PARTS = ("accept", "crowd", "line", "stores")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--only", choices=PARTS)
    only = parser.parse_args().only
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    base = ROOT / ".millrace" / "bench"
    for folder in (base.parent, base):
        folder.mkdir(mode=0o700, exist_ok=True)
    result: dict[str, Any] = {"machine": machine(base)}
    comparisons: dict[str, Comparison] = {}
    began = time.monotonic()
    with _progress() as progress, tempfile.TemporaryDirectory(dir=base) as temporary:
        directory = Path(temporary)
        task = progress.add_task("", total=_steps(only))

        def advance(what: str) -> None:
            progress.update(task, advance=1, description=what)

        if only in (None, "accept"):
            accepting = accept.measure(directory, advance)
            comparisons |= {"accept_small": accepting.small, "accept_large": accepting.large}
            result["web_growth_mib"] = round(accepting.web_growth_mib, 1)
            result["bare_worker_class"] = accepting.bare
            accept.clear(directory)
            directory.mkdir()
        if only in (None, "crowd"):
            comparisons["crowd_p95"], result["crowd_refused"] = crowd.measure(directory, advance)
        if only in (None, "line"):
            lined = line.measure(directory, advance)
            comparisons["line"] = lined.assets
            result["cpu_ms_per_asset"] = {"line": lined.cpu_ms, "rendering": lined.rendering_ms}
        if only in (None, "stores"):
            comparisons |= stores.measure(directory / "stores", advance)
    result |= {name: comparison.as_object() for name, comparison in comparisons.items()}
    result["seconds"] = round(time.monotonic() - began, 1)
    RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    _print(result, comparisons)


def _progress() -> Progress:
    columns = (TextColumn("{task.description:<45}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True))


def _steps(only: str | None) -> int:
    steps = {"accept": 1 + 2 * accept.ROUNDS, "crowd": crowd.STEPS, "line": line.ROUNDS, "stores": stores.STEPS}
    return sum(steps.values()) if only is None else steps[only]


def _print(result: dict[str, Any], comparisons: dict[str, Comparison]) -> None:
    console = Console()
    table = Table("", "ours", "bare limit", "unit", "ratio", "aim", title="Millrace beside the bare limit")
    for name, comparison in comparisons.items():
        shown = comparison.as_object()
        figures = (f"{shown['ours']:g}", f"{shown['bare']:g}", shown["unit"])
        table.add_row(name, *figures, f"{shown['ratio']:.2f}", f"≥ {AIMS[name]}" if name in AIMS else "")
    if "web_growth_mib" in result:
        table.add_row("web_growth_mib", f"{result['web_growth_mib']:g}", "", "MiB", "", f"≤ {AIM_GROWTH_MIB}")
    console.print(table)
    for refused in result.get("crowd_refused", ()):
        console.print(f"[bold]beside the crowd: {refused}")
    for title, stages in result.get("cpu_ms_per_asset", {}).items():
        cpu = Table("stage", "CPU ms", title=f"For each asset, {title}")
        for stage, milliseconds in stages.items():
            cpu.add_row(stage, f"{milliseconds:g}")
        cpu.add_row("sum", f"{sum(stages.values()):.1f}")
        console.print(cpu)
    facts = result["machine"]
    console.print(", ".join(f"{name}: {value}" for name, value in facts.items()), f"({result['seconds']} s)")
    if facts["load_at_start"] > BUSY * facts["cores"]:
        console.print("[bold]The machine was busy with something else when this began: measure again when it is not.")


if __name__ == "__main__":
    main()
