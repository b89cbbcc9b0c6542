"""`fleet versions`, done and printed. Its options are commands/versions.py; what was tested together is policies/compatibility.toml."""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from core.errors import FleetError
from operations.stack_file import read_fleet
from policies import compatibility
from policies.compatibility import COMPONENTS, Row, Site


def versions(arguments: argparse.Namespace) -> None:
    """Raises FleetError."""
    if wrong := compatibility.problems():
        raise FleetError("\n".join(f"policies/{compatibility.FILE.name}: {each}" for each in wrong))
    sites = list(compatibility.sites(read_fleet(arguments.stack)))
    print(json.dumps([_described(each) for each in sites], indent=2) if arguments.json else "\n".join(lines(sites)))


def _described(site: Site) -> dict[str, Any]:
    row, step = compatibility.tested(site.versions), compatibility.next_step(site.versions)
    return {
        "cluster": site.cluster,
        "versions": dict(site.versions),
        "unknown": site.unknown,
        "ran": bool(row and row.ran and not site.unknown),
        "tests": None if site.unknown or row is None else [{"what": each.what, "how": each.how, "when": each.when.isoformat()} for each in row.tests],
        "differs": {} if row else compatibility.nearest(site.versions).differs(site.versions),
        "nextStep": None if step is None else dict(step.versions),
    }


def lines(sites: Sequence[Site]) -> Iterator[str]:
    """What is printed. Clusters with the same versions are listed together."""
    groups: dict[tuple[Any, ...], list[Site]] = {}
    for each in sites:
        groups.setdefault((each.serves, *each.versions.items()), []).append(each)
    for same in groups.values():
        yield ", ".join(each.cluster for each in same)
        yield from (f"  {line}" for line in _site(same[0]))


def _site(site: Site) -> Iterator[str]:
    row = compatibility.tested(site.versions) or compatibility.nearest(site.versions)
    wrong = row.differs(site.versions)
    width = max(map(len, COMPONENTS.values()))
    for name, title in COMPONENTS.items():
        told = site.versions[name] or ("unknown" if site.serves or name != "vllm" else "serves no model")
        yield f"{title:{width}}  {told}" + (f"   tested: {row.versions[name]}" if name in wrong else "")
    if wrong:
        yield f"not tested together; the nearest row differs in {', '.join(COMPONENTS[name] for name in wrong)}"
    elif site.unknown:
        yield f"cannot be judged: unknown version of {', '.join(COMPONENTS[name] for name in site.unknown)}"
    else:
        yield "tested together:" if row.ran else "tested in part only, never run together:"
        yield from (f"  {each.when}  {each.what} ({each.how})" for each in row.tests)
    yield _step(site, compatibility.next_step(site.versions))


def _step(site: Site, step: Row | None) -> str:
    if site.unknown:
        return "next step: tell the versions under `driver.versions`"
    if step is None and (far := compatibility.too_far(site.versions)):
        before, after = site.versions["kubernetes"], far.versions["kubernetes"]
        return f"next step: none was run; a cluster goes on by one minor version of Kubernetes, and from {before} to {after} it is more"
    if step is None:
        return "next step: none; nothing newer was run together"
    moves: Mapping[str, str | None] = step.differs(site.versions)
    return "next step: " + ", ".join(f"{COMPONENTS[name]} {version} → {step.versions[name]}" for name, version in moves.items())
