"""Which store suits, in a few sentences made from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.findings import Finding, Grade
from core.settings import Settings

Findings = Mapping[str, Sequence[Finding]]

FAR_MS = 50.0
"""A store that needs longer for a small object is another machine, and not a near one."""
_ON_ONE_HOST = frozenset({"filesystem", "rocksdb"})


def advise(settings: Settings, findings: Findings) -> list[str]:
    said = [_of_store(name, str(options.get("kind")), findings) for name, options in settings.store_options.items()]
    kind = str(settings.store_options[settings.default_store].get("kind"))
    hosts = int(_figure(findings, "postgres", "hosts", "hosts") or 0)
    if kind in _ON_ONE_HOST and hosts > 1:
        said.append(
            f"{hosts} hosts are at work, and {settings.default_store} is a {kind} store: unless its root is one mount"
            " that all of them share, use s3 or postgres."
        )
    put = {name: _figure(findings, f"store:{name}", "latency", "put_p50_ms") for name in settings.store_options}
    known = {name: value for name, value in put.items() if value is not None}
    if len(known) > 1:
        fastest = min(known, key=known.__getitem__)
        said.append(f"For small objects {fastest} was the fastest here (put p50 {known[fastest]:.1f} ms).")
    return said


def _of_store(name: str, kind: str, findings: Findings) -> str:
    found = findings.get(f"store:{name}", ())
    if any(one.grade is Grade.PROBLEM for one in found):
        return f"{name} ({kind}): mend its problems first."
    put = _figure(findings, f"store:{name}", "latency", "put_p50_ms") or 0.0
    if kind == "filesystem":
        return f"{name} (filesystem) suits one host, or several that mount the same directory."
    if kind == "postgres":
        return f"{name} (postgres) suits small objects and few moving parts; large originals are cheaper in s3."
    if kind == "rocksdb":
        return f"{name} (rocksdb) suits one worker process with many small objects."
    if put > FAR_MS:
        return (
            f"{name} ({kind}) suits any number of hosts. It answers in {put:.0f} ms: uploads do not wait for that;"
            " raise work.ingest_concurrency when a backlog grows."
        )
    return f"{name} ({kind}) suits any number of hosts."


def _figure(findings: Findings, subject: str, check: str, name: str) -> float | None:
    for finding in findings.get(subject, ()):
        if finding.check == check:
            return finding.figures.get(name)
    return None
