"""What is in the image, as CycloneDX: the installed Python distributions and the packages of the operating system.

Runs in the image while it is built, by its own Python: what it lists is what is there, not what was asked for. Standard library only.
"""

import hashlib
import importlib.metadata
import json
import platform
import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

MEDIA_TYPE = "application/vnd.cyclonedx+json"
_STATUS, _RELEASE = Path("/var/lib/dpkg/status"), Path("/etc/os-release")
_SEPARATOR = re.compile(r"[-_.]+")


def document(paths: list[str], status: str, release: dict[str, str]) -> dict[str, Any]:
    """paths: where distributions are looked for. status: dpkg's. release: /etc/os-release. The same contents give the same document."""
    components = sorted([*_python(paths), *_debian(status, release)], key=lambda each: each["purl"])
    text = json.dumps(components, sort_keys=True)
    number = hashlib.sha256(text.encode()).hexdigest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        # Of the contents, so that building twice gives one document.
        "serialNumber": f"urn:uuid:{number[:8]}-{number[8:12]}-5{number[13:16]}-8{number[17:20]}-{number[20:32]}",
        "version": 1,
        "metadata": {
            "component": {
                "type": "container",
                "name": "inference-fleet-runtime",
                "properties": [
                    {"name": "os", "value": release.get("PRETTY_NAME", "")},
                    {"name": "python", "value": platform.python_version()},
                ],
            }
        },
        "components": components,
    }


def _python(paths: list[str]) -> list[dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for each in importlib.metadata.distributions(path=paths):
        name = _SEPARATOR.sub("-", each.metadata["Name"]).lower()
        purl = f"pkg:pypi/{name}@{quote(each.version, safe='')}"
        told = [each.metadata[key] for key in ("License-Expression", "License") if key in each.metadata]
        licence = next((text for text in told if text), "")
        # Some distributions put the whole text there.
        short = licence.strip() if "\n" not in licence.strip() and len(licence) <= 120 else ""
        found[purl] = _component(name, each.version, purl, short)
    return list(found.values())


def _debian(status: str, release: dict[str, str]) -> list[dict[str, Any]]:
    system = release.get("ID", "debian")
    result: list[dict[str, Any]] = []
    for paragraph in status.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in paragraph.splitlines() if ": " in line and not line.startswith(" "))
        if fields.get("Status") != "install ok installed":
            continue
        name, version = fields["Package"], fields["Version"]
        distribution = f"{system}-{release.get('VERSION_ID', '')}"
        purl = f"pkg:deb/{system}/{quote(name, safe='')}@{quote(version, safe='')}?arch={fields.get('Architecture', '')}&distro={distribution}"
        # Advisories are written about source packages; scanners ask for them by this.
        source = fields.get("Source", name).split(" ")[0]
        properties = [{"name": "source", "value": source}] if source != name else []
        result.append(_component(name, version, purl, "", properties))
    return result


def _component(name: str, version: str, purl: str, licence: str, properties: list[dict[str, str]] | None = None) -> dict[str, Any]:
    licences = {"licenses": [{"license": {"name": licence}}]} if licence else {}
    more = {"properties": properties} if properties else {}
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl, **licences, **more}


def release_of(text: str) -> dict[str, str]:
    """/etc/os-release as a mapping."""
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in text.splitlines()) if value}


if __name__ == "__main__":
    json.dump(document(sys.path, _STATUS.read_text(), release_of(_RELEASE.read_text())), sys.stdout, indent=1, sort_keys=True)
