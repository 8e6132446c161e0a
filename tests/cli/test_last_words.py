from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from supervise.crash_reason import complaint
from supervise.processes import capture

RAISED = json.dumps(
    {"level": "ERROR", "message": "in worker", "exc_info": "Traceback\n  File\nImportError: no module x"}
)
INFO = json.dumps({"level": "INFO", "message": "bye"})
SHUTDOWN = json.dumps({"level": "ERROR", "message": "Reason: Worker failed to boot."})


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([RAISED, SHUTDOWN, INFO], "ImportError: no module x"),
        ([SHUTDOWN, INFO], "Reason: Worker failed to boot."),
        (["LOG: starting", 'FATAL:  could not open "x"', "LOG: shut down"], 'FATAL:  could not open "x"'),
        (["Traceback", "  File x", "ValueError: y", ""], "ValueError: y"),
        (["FATAL:  no room", "initdb: removing contents of it"], "FATAL:  no room"),
        (["one", "two"], "two"),
        ([], ""),
    ],
)
def test_the_most_telling_line_is_shown(tmp_path: Path, lines: list[str], expected: str) -> None:
    log = tmp_path / "log"
    old = "FATAL: of an earlier run\n"
    log.write_text(old + "\n".join(lines))
    assert complaint(log, len(old)) == expected
    written = "\n".join(lines)
    program = f"import sys; sys.stderr.write({written!r}); sys.exit(7)"
    assert capture([sys.executable, "-c", program]).reason == (expected or "exit 7")
