"""Known vulnerabilities of the image: found by trivy or grype, judged here by a threshold and a list of exceptions that expire."""

import datetime as dt
import json
import shutil
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.errors import FleetError
from toolchain import paths

IGNORE_FILE = paths.REPO / "runtime_image" / "scan-ignore.toml"
SEVERITIES = ("negligible", "low", "medium", "high", "critical")
"""From the least on. What a scanner cannot rate counts as the highest: nobody has looked at it."""
_KEYS = {"id", "reason", "expires"}


@dataclass(frozen=True)
class Finding:
    """fixed: the version that mends it, empty where there is none yet."""

    id: str
    package: str
    version: str
    severity: str
    fixed: str = ""

    def __str__(self) -> str:
        return f"{self.id} ({self.severity}) in {self.package} {self.version}: {f'fixed in {self.fixed}' if self.fixed else 'no fix yet'}"


@dataclass(frozen=True)
class Ignore:
    """One entry of the list. package: empty for all."""

    id: str
    reason: str
    expires: dt.date
    package: str = ""

    def covers(self, finding: Finding) -> bool:
        return self.id == finding.id and self.package in {"", finding.package}


@dataclass(frozen=True)
class Verdict:
    """refused: at or above the threshold and not on the list. unused: entries that cover nothing."""

    refused: tuple[Finding, ...]
    ignored: tuple[Finding, ...]
    below: tuple[Finding, ...]
    expired: tuple[Ignore, ...]
    unused: tuple[Ignore, ...]

    @property
    def passed(self) -> bool:
        return not self.refused and not self.expired


def judge(findings: Sequence[Finding], ignores: Sequence[Ignore], today: dt.date, threshold: str) -> Verdict:
    """An entry counts until the day before it expires; expired, it fails the scan by itself."""
    valid = [each for each in ignores if each.expires > today]
    rank = SEVERITIES.index(threshold)
    refused: list[Finding] = []
    ignored: list[Finding] = []
    below: list[Finding] = []
    for finding in findings:
        if any(each.covers(finding) for each in valid):
            ignored.append(finding)
        else:
            (refused if _rank(finding.severity) >= rank else below).append(finding)
    refused.sort(key=lambda each: (-_rank(each.severity), each.id, each.package))
    unused = tuple(each for each in valid if not any(each.covers(finding) for finding in findings))
    return Verdict(tuple(refused), tuple(ignored), tuple(below), tuple(each for each in ignores if each.expires <= today), unused)


def _rank(severity: str) -> int:
    return SEVERITIES.index(severity) if severity in SEVERITIES else len(SEVERITIES)


def ignores(file: Path = IGNORE_FILE) -> list[Ignore]:
    """The list. Raises FleetError that names every entry that is wrong."""
    try:
        entries: Any = tomllib.loads(file.read_text()).get("ignore", [])
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise FleetError(f"{file.name}: cannot be read: {error}") from None
    found: list[Ignore] = []
    wrong: list[str] = []
    for number, entry in enumerate(cast("list[Mapping[str, Any]]", entries)):
        where = f"{file.name}: ignore[{number}]"
        wrong += [f"{where}.{key}: must be given" for key in sorted(_KEYS - entry.keys())]
        wrong += [f"{where}.{key}: is not a known key" for key in sorted(entry.keys() - _KEYS - {"package"})]
        if not str(entry.get("reason", "?")).strip():
            wrong.append(f"{where}.reason: must say why, got: ``")
        if "expires" in entry and type(entry["expires"]) is not dt.date:
            wrong.append(f"{where}.expires: must be a day such as 2027-01-31, without quotes, got: `{entry['expires']}`")
        if not wrong:
            found.append(Ignore(entry["id"], entry["reason"], entry["expires"], entry.get("package", "")))
    if wrong:
        raise FleetError("\n".join(wrong), hint="an entry has id, reason and expires, and may have package")
    return found


def read(text: str) -> list[Finding]:
    """The report of trivy (`--format json`) or grype (`--output json`). Raises FleetError."""
    try:
        report = json.loads(text)
        if "matches" in report:
            found = [_of_grype(each) for each in report["matches"]]
        elif "SchemaVersion" in report:
            found = [_of_trivy(each) for result in report.get("Results") or [] for each in result.get("Vulnerabilities") or []]
        else:
            raise ValueError("neither `matches` nor `SchemaVersion`")
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FleetError(f"the report is none of trivy's or grype's in JSON: {error}", hint="trivy --format json, or grype --output json") from None
    return list(dict.fromkeys(found))


def _of_trivy(entry: Mapping[str, Any]) -> Finding:
    return Finding(entry["VulnerabilityID"], entry["PkgName"], entry["InstalledVersion"], entry["Severity"].lower(), entry.get("FixedVersion", ""))


def _of_grype(entry: Mapping[str, Any]) -> Finding:
    known, artifact = entry["vulnerability"], entry["artifact"]
    fixed = (known.get("fix") or {}).get("versions") or [""]
    return Finding(known["id"], artifact["name"], artifact["version"], known["severity"].lower(), fixed[0])


def scan(layout: Path) -> str:
    """The report of the scanner that is on PATH about an OCI layout. Raises FleetError."""
    commands = {
        "trivy": ["trivy", "image", "--quiet", "--format", "json", "--input", str(layout)],
        "grype": ["grype", "--quiet", "--output", "json", f"oci-dir:{layout}"],
    }
    name = next((name for name in commands if shutil.which(name)), None)
    if name is None:
        raise FleetError("neither trivy nor grype is on PATH: nothing was scanned", hint="install one, or judge a report made elsewhere with --report FILE")
    done = subprocess.run(commands[name], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        told = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise FleetError(f"{name} failed: {told[0][:300]}", hint="does it reach its database of vulnerabilities?")
    return done.stdout
