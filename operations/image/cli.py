"""`fleet image`, done and printed: builds the serving runtime image, pushes it, looks at it, tries it, scans and signs it.

Its options are commands/image.py.
"""

import argparse
import contextlib
import datetime as dt
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import httpx

from core.errors import FleetError
from core.exclusive import exclusive
from core.interrupts import heeding_sigterm
from core.progress import Progress
from local import registry as registry_process
from oci import layout, reference
from oci.layout import Layout
from oci.reference import Reference
from oci.registry import Registry
from oci.store import Store
from operations.image import trial
from operations.meter import Meter, shown
from runtime_image.image import builders, inputs, sbom
from runtime_image.image import push as registries
from runtime_image.image import scan as scanning
from runtime_image.image import sign as signing
from runtime_image.image.builders import Built
from runtime_image.image.inputs import Definition

_REGISTRY_START_S = 30.0


def _chosen(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(each for each in inputs.VARIANTS if each in (arguments.variant or inputs.VARIANTS))


def _build(definitions: tuple[Definition, ...], builder: str, progress: Progress) -> list[Built]:
    return [builders.ensure(each, builder, progress) for each in definitions]


@contextlib.contextmanager
def _alone(what: str) -> Generator[None]:
    """One build per machine and cache; Ctrl-C and SIGTERM end it, and what is half done goes."""
    with exclusive(builders.HOME / "lock", what), heeding_sigterm():
        yield


def build(arguments: argparse.Namespace) -> None:
    chosen = _chosen(arguments)
    definitions = tuple(inputs.read(each, arguments.base) for each in chosen)
    progress = Progress()
    with _alone("fleet image build"):
        for built in _build(definitions, arguments.builder, progress):
            described = _described(Layout(built.layout))
            progress.say(f"{built.definition.variant}: {shown(described.size)} in {len(described.layers)} layers, in {built.layout}")
            print(f"{built.definition.variant} {described.digest}")


def push(arguments: argparse.Namespace) -> None:
    target = registries.parse_repository(arguments.repository)
    chosen = _chosen(arguments)
    definitions = inputs.all_variants(arguments.base, chosen)
    tag = arguments.tag or inputs.tag(definitions)
    progress = Progress()
    digests: dict[str, str] = {}
    contents: dict[str, str] = {}
    with _alone("fleet image push"):
        for definition in definitions:
            if definition.variant in chosen:
                digest, attached = _push(definition, target, tag, arguments.builder, progress)
                digests[definition.variant], contents[definition.variant] = digest, attached
    result = {
        "repository": f"{target.host}/{target.repository}",
        "tag": tag,
        "digests": digests,
        "vllm": definitions[0].vllm,
        "torch": definitions[0].torch,
        "sbom": contents,
    }
    if arguments.json:
        print(json.dumps(result))
    else:
        for variant, digest in digests.items():
            print(f"{variant} {target.host}/{inputs.repository(target.repository, variant)}@{digest}")


def _push(definition: Definition, target: Reference, tag: str, builder: str, progress: Progress) -> tuple[str, str]:
    """(digest, place of the list of contents). Neither builds nor sends what the registry has from the same inputs."""
    here = Reference(target.host, inputs.repository(target.repository, definition.variant), tag)
    place = f"{reference.SCHEME}{here.host}/{here.repository}"
    with Registry(here) as registry:
        there = registries.describe(registry, tag) if registry.has_manifest(tag) else None
        if there and there.labels.get(inputs.INPUTS_LABEL) == definition.digest and (attached := _contents(registry, there.digest)):
            progress.say(f"{here}: was built from the same inputs, nothing to do")
            return there.digest, f"{place}@{attached}"
    built = builders.ensure(definition, builder, progress)
    with progress.stage(f"{definition.variant}: pushing"):
        pushed = registries.push(built.layout, built.sbom, here, Meter(progress))
    progress.say(f"pushed {here}: {shown(pushed.sent)} sent")
    return pushed.digest, f"{place}@{pushed.sbom}"


def _contents(registry: Registry, digest: str) -> str:
    """The digest of the image's list of contents, empty where it has none."""
    return next((each["digest"] for each in registry.referrers(digest) if each.get("artifactType") == sbom.MEDIA_TYPE), "")


def show_inputs(arguments: argparse.Namespace) -> None:
    definitions = inputs.all_variants(arguments.base, _chosen(arguments))
    result = {
        "digest": inputs.together(definitions),
        "tag": inputs.tag(definitions),
        "variants": {each.variant: {"digest": each.digest, "base": each.base} for each in definitions},
        "vllm": definitions[0].vllm,
        "torch": definitions[0].torch,
    }
    if arguments.json:
        print(json.dumps(result))
        return
    print(f"{result['tag']}  vLLM {result['vllm']}, PyTorch {result['torch']}")
    for each in definitions:
        print(f"{each.variant}  {each.digest}  {each.base}")


# Looking at one


@contextlib.contextmanager
def _opened(source: str) -> Generator[tuple[Store, str]]:
    """Raises FleetError."""
    if source.startswith(reference.SCHEME):
        found = reference.parse(source)
        with Registry(found) as registry:
            yield registry, found.wanted
        return
    place = _layout(source)
    yield Layout(place), Layout(place).root()


def _layout(source: str) -> Path:
    """A layout on this machine: a folder, or what was built last of a variant. Raises FleetError."""
    if source in inputs.VARIANTS:
        built = sorted(builders.HOME.glob(f"{source}-*"))
        if not built:
            raise FleetError(f"the variant {source} is not built here", hint=f"fleet image build --variant {source}")
        return built[-1] / builders.LAYOUT
    if not layout.is_layout(Path(source)):
        raise FleetError(f"{source}: is neither an oci:// reference nor an OCI layout nor a variant", hint=f"the variants are: {', '.join(inputs.VARIANTS)}")
    return Path(source)


def _described(place: Layout) -> registries.Description:
    return registries.describe(place, place.root())


def inspect(arguments: argparse.Namespace) -> None:
    with _opened(arguments.source) as (store, wanted):
        found = registries.describe(store, wanted)
        contents = _contents(store, found.digest) if isinstance(store, Registry) else ""
    print(f"digest      {found.digest}")
    print(f"vLLM        {found.labels.get(inputs.VERSION_LABEL, 'unknown')}, PyTorch {found.labels.get(inputs.TORCH_LABEL, 'unknown')}")
    print(f"inputs      {found.labels.get(inputs.INPUTS_LABEL, 'unknown')}")
    print(f"base        {found.labels.get('org.opencontainers.image.base.name', 'unknown')}")
    print(f"user        {found.config.get('User') or '0'}")
    print(f"entrypoint  {json.dumps(found.config.get('Entrypoint'))}")
    if contents:
        print(f"contents    {contents}")
    print(_layers(found))


def _layers(found: registries.Description) -> str:
    lines = [f"{shown(each.size):>10}  {each.digest[7:19]}  {_step(each.made_by)}" for each in found.layers]
    return "\n".join([*lines, f"{shown(found.size):>10}  in all"])


def _step(text: str) -> str:
    """What a builder writes about a step, without what it puts before."""
    words = text.replace("/bin/sh -c", "").replace("#(nop)", "").split()
    return " ".join(word for word in words if not word.startswith(("|", "--mount=")))[:90]


# Trying one


def test(arguments: argparse.Namespace) -> None:
    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="image-trial-", dir=_scratch()) as made, _alone("fleet image test"):
        work = Path(made)
        place = _pulled(arguments.source, work, progress) if arguments.source else _round_trip(arguments, work, progress)
        report = trial.run(place, work, progress, arguments.user)
        found = _described(Layout(place))
    print(f"vLLM {report.version} in {found.digest}\n")
    print("\n".join(f"  {each}" for each in report.checks))
    print("\nLayers, as they travel\n\n" + _layers(found))
    before = [(name, seconds) for name, seconds in progress.stages if name in _MOVED or name.startswith("cpu:")]
    print("\nSeconds\n")
    print("\n".join(f"{seconds:>10.1f}  {name}" for name, seconds in (*before, *report.parts.items())))


_MOVED = ("pushing", "pulling", "unpacking")


def _scratch() -> Path:
    """For some gigabytes: the cache has the room, /tmp often has not."""
    builders.HOME.mkdir(parents=True, exist_ok=True)
    return builders.HOME


def _pulled(source: str, work: Path, progress: Progress) -> Path:
    if not source.startswith(reference.SCHEME):
        return _layout(source)
    with progress.stage("pulling"):
        registries.pull(reference.parse(source), work / "pulled", Meter(progress))
    return work / "pulled"


def _round_trip(arguments: argparse.Namespace, work: Path, progress: Progress) -> Path:
    """Build, push to a registry of this command's own, pull from there."""
    built = builders.ensure(inputs.read(inputs.CPU, arguments.base), arguments.builder, progress)
    with own_registry(work) as host:
        target = Reference(host, inputs.repository("inference-fleet/runtime", inputs.CPU), "trial")
        with progress.stage("pushing"):
            pushed = registries.push(built.layout, built.sbom, target, Meter(progress))
        with progress.stage("pulling"):
            registries.pull(Reference(target.host, target.repository, digest=pushed.digest), work / "pulled", Meter(progress))
    # It holds the image a second time, and unpacking needs the room.
    shutil.rmtree(work / "registry")
    return work / "pulled"


@contextlib.contextmanager
def own_registry(work: Path) -> Generator[str]:
    """The pinned registry on loopback, HOST:PORT."""
    port = trial.free_port()
    command = registry_process.command(work / "registry", port)
    with (work / "registry.log").open("wb") as log:
        running = subprocess.Popen(command, env=registry_process.ENV, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
    try:
        _await_registry(port, running)
        yield f"127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait()


def _await_registry(port: int, running: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _REGISTRY_START_S
    while running.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/v2/", trust_env=False).status_code == 200:
                return
        time.sleep(0.1)
    raise FleetError("the registry of the trial does not answer")


# Supply chain


def scan(arguments: argparse.Namespace) -> None:
    if bool(arguments.source) == bool(arguments.report):
        raise FleetError("scan needs an image or a report, one of them", hint="fleet image scan cpu, or --report FILE")
    ignores = scanning.ignores()
    if arguments.report:
        try:
            text = arguments.report.read_text()
        except OSError as error:
            raise FleetError(f"{arguments.report}: cannot be read: {error.strerror}") from None
    else:
        with tempfile.TemporaryDirectory(prefix="image-scan-", dir=_scratch()) as made:
            text = scanning.scan(_pulled(arguments.source, Path(made), Progress()))
    today = dt.datetime.now(tz=dt.UTC).date()
    verdict = scanning.judge(scanning.read(text), ignores, today, arguments.fail_on)
    for each in verdict.unused:
        print(f"{scanning.IGNORE_FILE.name}: {each.id} is on the list and not in the image: take it off")
    print(f"{len(verdict.refused)} refused, {len(verdict.ignored)} ignored with a reason, {len(verdict.below)} below `{arguments.fail_on}`")
    if not verdict.passed:
        lines = [f"{scanning.IGNORE_FILE.name}: {each.id}: expired on {each.expires}" for each in verdict.expired]
        lines += [str(each) for each in verdict.refused]
        hint = f"take a newer base or lock, or add it to {scanning.IGNORE_FILE.name} with a reason and a day"
        raise FleetError("the image is refused:\n" + "\n".join(f"  {line}" for line in lines), hint=hint)


def sign(arguments: argparse.Namespace) -> None:
    signing.sign(reference.parse(arguments.target), signing.Signer(arguments.key))
    print(f"signed {arguments.target}")


def verify(arguments: argparse.Namespace) -> None:
    signing.verify(reference.parse(arguments.target), signing.Signer(arguments.key, arguments.identity, arguments.issuer))
    print(f"verified {arguments.target}")
