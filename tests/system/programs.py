"""The programs of Debian that the tests here need. Run as a module it sees to it that they are there.

Started by root it installs what is missing with apt-get; by another it says what is missing and fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping

PACKAGES = {"haproxy": "haproxy", "pgbouncer": "pgbouncer"}
"""By program: the package that brings it."""

PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
"""Where servers lie is not in everybody's PATH."""


def program(name: str) -> str:
    """Say where a program of such a table lies.

    Raises:
        FileNotFoundError: it is not installed.
    """
    found = shutil.which(name, path=PATH)
    if found is None:
        raise FileNotFoundError(f"{name} is not installed: make system-test installs it, or says how")
    return found


def missing(packages: Mapping[str, str] = PACKAGES) -> list[str]:
    """The packages that have to be installed."""
    return sorted({package for name, package in packages.items() if shutil.which(name, path=PATH) is None})


def install(asker: str, packages: Mapping[str, str] = PACKAGES) -> int:
    """Install what is missing, or say what that is; 0: all of it is there."""
    wanted = missing(packages)
    if not wanted:
        return 0
    if os.geteuid() != 0 or shutil.which("apt-get", path=PATH) is None:
        print(f"{asker} needs {', '.join(wanted)}: apt-get install {' '.join(wanted)}", file=sys.stderr)
        return 1
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "--yes", "--no-install-recommends", *wanted]):
        done = subprocess.run(["apt-get", "-q", *arguments], env=environment, check=False)
        if done.returncode != 0:
            return done.returncode
    return 1 if missing(packages) else 0


if __name__ == "__main__":
    sys.exit(install("make system-test"))
