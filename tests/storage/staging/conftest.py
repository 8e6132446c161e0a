from __future__ import annotations

from pathlib import Path

import pytest

from core import failpoints
from storage.staging.staging import Staging
from tests.storage.staging.uploads import settings


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging.open(settings(tmp_path))


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    directory = tmp_path / "failpoints"
    monkeypatch.setattr(failpoints, "_DIRECTORY", str(directory))
    return directory
