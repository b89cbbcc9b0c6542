"""`fleet model`, done and printed: packs a model directory into an OCI artifact, looks at, checks, pushes and pulls one.

Its options are commands/model.py.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from core.errors import FleetError
from core.progress import Progress
from oci import layout, model, reference, store, transfer
from oci.image import Artifact
from oci.reference import Reference
from oci.store import Stored
from operations import stack_file
from operations.meter import Meter, shown
from specs.models import ModelFacts

# What the stack file's `facts:` may hold, and whether it must; artifacts carry more.
_STACK_FACTS = {cast(str, field.alias): field.is_required() for field in ModelFacts.model_fields.values()}


def _target(text: str) -> Reference:
    """Raises FleetError, before anything is read."""
    found = reference.parse(text)
    if not found.tag or found.digest:
        raise FleetError(f"push needs a tag and no digest, got: `{text}`", hint="it looks like oci://registry.example.com/models/name:v1")
    return found


def pack(arguments: argparse.Namespace) -> None:
    if not arguments.target and not arguments.output:
        raise FleetError("pack needs a place for the artifact", hint="name oci://HOST/REPOSITORY:TAG, or --output DIR for an OCI layout")
    target = _target(arguments.target) if arguments.target else None
    if arguments.output:
        layout.refuse_occupied(arguments.output)
    progress = Progress()
    meter = Meter(progress)
    artifact, found = transfer.pack(arguments.directory, raw=arguments.raw, base=arguments.base, meter=meter)
    for warning in found.warnings:
        progress.say(f"warning: {warning}")
    if arguments.output:
        layout.write(artifact, arguments.output, meter)
        progress.say(f"written to {arguments.output}")
    if target:
        _send(artifact, target, progress)
    print(artifact.digest)


def push(arguments: argparse.Namespace) -> None:
    target = _target(arguments.target)
    if not layout.is_layout(arguments.layout):
        raise FleetError(f"{arguments.layout}: is no OCI layout", hint="fleet model pack DIR --output LAYOUT makes one")
    progress = Progress()
    artifact = transfer.from_layout(arguments.layout, Meter(progress))
    _send(artifact, target, progress)
    print(artifact.digest)


def _send(artifact: Artifact, target: Reference, progress: Progress) -> None:
    sent = transfer.push(artifact, target, Meter(progress))
    total = sum(blob.size for blob in artifact.blobs)
    progress.say(f"pushed {target}: {shown(sent)} sent, {shown(total - sent)} were there")
    progress.say(f"source: {reference.SCHEME}{target.host}/{target.repository}@{artifact.digest}")


def ensure(arguments: argparse.Namespace) -> None:
    progress = Progress()
    sent = transfer.ensure(arguments.directory, arguments.source, Meter(progress))
    progress.say(f"{arguments.source}: {'pushed' if sent else 'is there'}")
    print(reference.parse(arguments.source).digest)


def pull(arguments: argparse.Namespace) -> None:
    progress = Progress()
    found = transfer.pull(arguments.source, arguments.directory, Meter(progress))
    progress.say(f"pulled {shown(sum(layer.size for layer in found.layers))} to {arguments.directory}")
    print(found.root.blob.digest)


def verify(arguments: argparse.Namespace) -> None:
    progress = Progress()
    result = transfer.verify(arguments.source, licence_needed=not arguments.no_licence, meter=Meter(progress))
    for warning in result.found.warnings:
        progress.say(f"warning: {warning}")
    licence = ", ".join(result.found.licences) or "none"
    progress.say(f"every digest is right, {shown(result.size)} read; the facts are those of the files; licence: {licence}")
    print(result.digest)


def inspect(arguments: argparse.Namespace) -> None:
    folder = Path(arguments.source)
    if folder.is_dir() and not layout.is_layout(folder):
        facts = model.examine(model.contents_of(folder, model.scan(folder))).facts
    else:
        with transfer.opened(arguments.source) as (place, wanted):
            found = store.load(place, wanted)
        if found.facts is None:
            raise FleetError(f"{arguments.source}: carries no facts", hint="fleet model pack writes them")
        print(_head(found))
        facts = found.facts
    print(_render(facts))
    if arguments.stack:
        _compare(arguments, facts)


def _head(found: Stored) -> str:
    """As comments, so that the whole output is YAML."""
    lines = [f"# digest: {found.root.blob.digest}"]
    if found.modelpack:
        lines.append(f"# ModelPack manifest: {found.modelpack.blob.digest}")
    for layer in found.layers:
        title = layer.annotations.get("org.opencontainers.image.title", "")
        lines.append(f"# layer: {layer.digest} {shown(layer.size)} {title}".rstrip())
    return "\n".join(lines)


def _render(facts: Mapping[str, Any]) -> str:
    own = ", ".join(f"{key}: {json.dumps(facts[key])}" for key in _STACK_FACTS if key in facts)
    more = [f"# {key}: {value if isinstance(value, str) else json.dumps(value)}" for key, value in sorted(facts.items()) if key not in _STACK_FACTS]
    return "\n".join([f"facts: {{{own}}}", *more])


def _compare(arguments: argparse.Namespace, facts: Mapping[str, Any]) -> None:
    """Raises FleetError where the stack file says otherwise."""
    file = stack_file.path(arguments.stack)
    try:
        by_name: dict[str, Mapping[str, Any]] = {each["name"]: each for each in stack_file.read_spec(file)["models"]}
    except (KeyError, TypeError):
        raise FleetError(f"{stack_file.shown(file)}: models: must be a list of mappings with a `name` each") from None
    name = arguments.model or next((name for name, each in by_name.items() if each.get("source") == arguments.source), None)
    if name not in by_name:
        what = f"no model `{name}`" if name else f"no model with the source `{arguments.source}`"
        raise FleetError(f"{stack_file.shown(file)}: has {what}", hint=f"--model NAME is one of: {', '.join(by_name)}")
    written: Mapping[str, Any] = by_name[name].get("facts") or {}
    real = {key: facts[key] for key, needed in _STACK_FACTS.items() if key in facts and (needed or key in written)}
    differing = transfer.differences(written, real)
    if differing:
        raise FleetError(f"{stack_file.shown(file)}: models `{name}`: facts differ from the artifact's:\n" + "\n".join(f"  {line}" for line in differing))
    Progress().say(f"the facts of {name} in {stack_file.shown(file)} are those of the artifact")
