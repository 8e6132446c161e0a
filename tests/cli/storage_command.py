"""`millrace storage …` beside a line in this process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.pipeline.line import Line

ROOT = Path(__file__).parents[2]


@dataclass
class StorageCommand:
    home: Path
    line: Line
    environment: dict[str, str]

    def start(self, *words: str, **variables: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "cli", "storage", *words],
            cwd=ROOT,
            env=self.environment | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str, **variables: str) -> tuple[int, str, str]:
        with self.start(*words, **variables) as process:
            said, complained = process.communicate(timeout=90)
        return process.returncode, said, complained
