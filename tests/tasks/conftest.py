from __future__ import annotations

from uuid import uuid4

import pytest

from core.settings import Settings
from storage.staging import installation


@pytest.fixture
def application(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set what the Celery application reads at the first look at one of its tasks, once in a process: the settings of
    a host that knows its installation, whose broker is away."""
    home = tmp_path_factory.mktemp("application")
    installation.keep(Settings(home=home), uuid4())
    monkeypatch.setenv("MILLRACE_HOME", str(home))
    monkeypatch.setenv("MILLRACE_REDIS_URL", "redis://127.0.0.1:1/0")
