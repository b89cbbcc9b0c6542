"""The list of exceptions: what it covers, when it stops, and what a wrong entry is told."""

import datetime as dt
import json
from pathlib import Path

import pytest

from core.errors import FleetError
from operations import cli
from runtime_image.image import scan
from runtime_image.image.scan import Finding, Ignore

TODAY = dt.date(2026, 11, 21)
HIGH = Finding("CVE-1", "perl-base", "5.36", "high", "5.38")


def ignore(expires: dt.date = dt.date(2027, 1, 1), package: str = "") -> Ignore:
    return Ignore("CVE-1", "why", expires, package)


def test_a_finding_at_the_threshold_is_refused_and_one_below_is_not() -> None:
    medium = Finding("CVE-2", "curl", "8", "medium")
    verdict = scan.judge([HIGH, medium], [], TODAY, "high")
    assert (verdict.refused, verdict.below, verdict.passed) == ((HIGH,), (medium,), False)
    assert scan.judge([medium], [], TODAY, "high").passed


def test_what_a_scanner_cannot_rate_is_refused() -> None:
    assert not scan.judge([Finding("CVE-3", "x", "1", "unknown")], [], TODAY, "critical").passed


def test_an_entry_covers_its_vulnerability_in_every_package_or_in_one() -> None:
    other = Finding("CVE-1", "perl", "5.36", "high")
    assert scan.judge([HIGH, other], [ignore()], TODAY, "high").passed
    assert scan.judge([HIGH, other], [ignore(package="perl-base")], TODAY, "high").refused == (other,)


def test_an_entry_counts_until_the_day_before_it_expires() -> None:
    assert scan.judge([HIGH], [ignore(TODAY + dt.timedelta(days=1))], TODAY, "high").passed
    late = scan.judge([HIGH], [ignore(TODAY)], TODAY, "high")
    assert late.refused == (HIGH,)
    assert late.expired == (ignore(TODAY),)


def test_an_expired_entry_fails_though_the_vulnerability_is_gone() -> None:
    assert not scan.judge([], [ignore(TODAY)], TODAY, "high").passed


def test_an_entry_that_covers_nothing_is_told_and_fails_nothing() -> None:
    verdict = scan.judge([], [ignore()], TODAY, "high")
    assert verdict.unused == (ignore(),)
    assert verdict.passed


def test_the_list_of_this_repository_can_be_read_and_has_not_expired() -> None:
    now = dt.datetime.now(tz=dt.UTC).date()
    assert [each for each in scan.ignores() if each.expires <= now] == []


def test_wrong_entries_are_told_all_at_once(tmp_path: Path) -> None:
    file = tmp_path / "list.toml"
    file.write_text('[[ignore]]\nid = "CVE-1"\nreason = " "\nexpires = "2027-01-01"\n[[ignore]]\nid = "CVE-2"\nwhy = "x"\nexpires = 2027-01-01\n')
    with pytest.raises(FleetError) as raised:
        scan.ignores(file)
    assert str(raised.value).splitlines() == [
        "list.toml: ignore[0].reason: must say why, got: ``",
        "list.toml: ignore[0].expires: must be a day such as 2027-01-31, without quotes, got: `2027-01-01`",
        "list.toml: ignore[1].reason: must be given",
        "list.toml: ignore[1].why: is not a known key",
    ]


# The fields that are read, as the two scanners' JSON has them.
TRIVY = {
    "SchemaVersion": 2,
    "Results": [
        {
            "Target": "os",
            "Vulnerabilities": [{"VulnerabilityID": "CVE-1", "PkgName": "perl-base", "InstalledVersion": "5.36", "FixedVersion": "5.38", "Severity": "HIGH"}],
        },
        {"Target": "clean"},
    ],
}
GRYPE = {
    "matches": [
        {
            "vulnerability": {"id": "CVE-1", "severity": "High", "fix": {"versions": ["5.38"], "state": "fixed"}},
            "artifact": {"name": "perl-base", "version": "5.36"},
        }
    ]
}


@pytest.mark.parametrize("report", [TRIVY, GRYPE], ids=["trivy", "grype"])
def test_both_scanners_reports_tell_the_same(report: object) -> None:
    assert scan.read(json.dumps(report)) == [HIGH]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"matches": [{}]}'])
def test_another_report_is_refused(text: str) -> None:
    with pytest.raises(FleetError, match="none of trivy's or grype's"):
        scan.read(text)


def test_without_a_scanner_nothing_is_pretended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(FleetError, match="nothing was scanned"):
        scan.scan(tmp_path)


def test_the_command_refuses_an_image_by_its_report(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    report.write_text(json.dumps(TRIVY))
    arguments = cli.parse(["image", "scan", "--report", str(report)])
    with pytest.raises(FleetError, match=r"CVE-1 \(high\) in perl-base 5\.36: fixed in 5\.38"):
        arguments.run(arguments)
