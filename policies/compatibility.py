"""Which versions were tested together, and which of them a stack has."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field

from specs.base import WHOLE_FILE, Problem, Spec, SpecError, parse
from specs.clusters import ClusterSpec
from specs.fleet import FleetSpec
from toolchain.pins import PINS

FILE = Path(__file__).with_name("compatibility.toml")

COMPONENTS: Mapping[str, str] = {
    "kubernetes": "Kubernetes",
    "karmada": "Karmada",
    "kserve": "KServe",
    "istio": "Istio",
    "gatewayApi": "Gateway API",
    "inferenceExtension": "inference extension",
    "vllm": "vLLM",
    "gpuOperator": "GPU operator",
}
"""As the file and stack files name them, and as people do."""
# Without these nothing can be said of a cluster. The rest may not be there at all.
REQUIRED = ("kubernetes", "karmada", "kserve", "istio", "vllm")


_Text = Annotated[str, Field(min_length=1)]


class Trial(Spec):
    """One thing that was tried with the versions of a row."""

    what: _Text
    how: _Text
    when: date


@dataclass(frozen=True, kw_only=True)
class Row:
    """Versions that were run together."""

    versions: Mapping[str, str]
    tests: Sequence[Trial]
    ran: bool
    """Whether a fleet of these versions was up and served. Otherwise `tests` say what alone was looked at."""

    def differs(self, versions: Mapping[str, str | None]) -> dict[str, str | None]:
        """What of `versions` is another version than the row's. Where a stack says nothing of a part, nothing differs."""
        return {name: version for name, version in versions.items() if version is not None and not _same(version, self.versions[name])}


@dataclass(frozen=True, kw_only=True)
class Site:
    """One cluster with one vLLM: what has to be tested together."""

    cluster: str
    versions: Mapping[str, str | None]
    """Of every one of COMPONENTS; None where the stack file does not say."""
    serves: bool = True
    """Whether it runs a vLLM. One without a model gets the mesh and the control planes all the same."""

    @property
    def unknown(self) -> list[str]:
        return [name for name in REQUIRED if self.versions[name] is None and (self.serves or name != "vllm")]


def _same(version: str, tested: str) -> bool:
    """Whether `version` is the tested one. `1.36` is taken for any patch of it, as managed clusters name no more."""
    return tested == version or tested.startswith(f"{version}.")


class _Row(Spec):
    """A row as the file has it; `none` for what was not there."""

    kubernetes: _Text
    karmada: _Text
    kserve: _Text
    istio: _Text
    gateway_api: _Text
    inference_extension: _Text
    vllm: _Text
    gpu_operator: _Text
    ran: bool
    tests: Annotated[tuple[Trial, ...], Field(min_length=1)]


class _File(Spec):
    names: dict[str, str] = Field(default_factory=dict[str, str])
    rows: Annotated[tuple[_Row, ...], Field(min_length=1)]


@cache
def _read() -> tuple[_File, Sequence[Problem]]:
    """The file, and what is wrong with it: then it counts as empty, and nothing was tested."""
    try:
        # Dates are types of TOML, and text to a Spec.
        raw = json.loads(json.dumps(tomllib.loads(FILE.read_text(encoding="utf-8")), default=str))
        return parse(_File, raw, lambda _: ()), ()
    except SpecError as error:
        wrong = error.problems
    except OSError as error:
        wrong = [Problem(WHOLE_FILE, f"cannot be read: {error.strerror}")]
    except ValueError as error:
        wrong = [Problem(WHOLE_FILE, f"is not valid TOML: {error}")]
    return _File.model_construct(names={}, rows=()), wrong


def problems() -> Sequence[Problem]:
    """What is wrong with the file."""
    return _read()[1]


@cache
def matrix() -> tuple[Row, ...]:
    """Rows of the file, newest first."""
    told = [(each, each.model_dump(by_alias=True)) for each in _read()[0].rows]
    return tuple(Row(versions={name: row[name] for name in COMPONENTS}, tests=each.tests, ran=each.ran) for each, row in told)


# What a vendor writes behind the version that it builds, such as `-gke.1087000` or `+k3s1`. A release candidate is another version.
_BUILD = re.compile(r"[-+](?!alpha|beta|rc)[a-z][\w.+-]*$")


def named(version: str) -> str:
    """The release line of a version without a number of its own; any other without a leading `v` and a vendor's build."""
    return _read()[0].names.get(version) or _BUILD.sub("", version.removeprefix("v"))


def vllm_of(image: str) -> str | None:
    """The version in an image's tag; None where it tells none."""
    tag = re.search(r":v?(\d+\.\d+\.\d+)(?![\d.])[\w.-]*$", image.partition("@")[0])
    return tag[1] if tag else None


def sites(fleet: FleetSpec) -> Iterator[Site]:
    """Every cluster with every vLLM that runs there; one without a model once."""
    for cluster in fleet.clusters:
        known = {**_of_cluster(cluster), "karmada": named(PINS.karmada)}
        images = dict.fromkeys(
            fleet.runtimes.for_accelerator(model.accelerator_in(cluster.name).type).image for model in fleet.models if cluster.name in model.placement.weights
        )
        for image in images or (None,):
            vllm = vllm_of(image) if image else None
            yield Site(cluster=cluster.name, versions={name: known.get(name) for name in COMPONENTS} | {"vllm": vllm}, serves=image is not None)


def _of_cluster(cluster: ClusterSpec) -> dict[str, str | None]:
    return {name: named(version) if version else None for name, version in cluster.driver.capabilities.versions.items()}


def tested(versions: Mapping[str, str | None]) -> Row | None:
    """The newest row in which all of `versions` were run together."""
    return next((row for row in matrix() if not row.differs(versions)), None)


def nearest(versions: Mapping[str, str | None]) -> Row:
    """The row with the fewest differences, the newest of several. Raises ValueError where the file has errors."""
    return min(matrix(), key=lambda row: len(row.differs(versions)))


def next_step(versions: Mapping[str, str | None]) -> Row | None:
    """The next row to go to: it ran, nothing in it is older than now, Kubernetes at most one minor version on. None where there is none.

    Of several the one that changes least: several small steps show sooner which of them breaks something.
    """
    here = tested(versions)
    ahead = [row for row in matrix() if row.ran and row is not here and row.differs(versions) and _is_step(versions, row.versions)]
    return min(ahead, key=lambda row: len(row.differs(versions)), default=None)


def too_far(versions: Mapping[str, str | None]) -> Row | None:
    """The nearest row that ran and would be a step, if a cluster could go on by several minor versions of Kubernetes at once."""
    elsewhere = {name: version for name, version in versions.items() if name != "kubernetes"}
    minor = _numbers(versions["kubernetes"])[:2]
    ahead = [row for row in matrix() if row.ran and minor and minor < _numbers(row.versions["kubernetes"])[:2] and _is_step(elsewhere, row.versions)]
    return min(ahead, key=lambda row: _numbers(row.versions["kubernetes"]), default=None)


def _is_step(now: Mapping[str, str | None], then: Mapping[str, str]) -> bool:
    for name, version in now.items():
        before, after = _numbers(version), _numbers(then[name])
        if before and (not after or after[: len(before)] < before):
            return False
        if name == "kubernetes" and len(before) > 1 and len(after) > 1 and after[0] == before[0] and after[1] > before[1] + 1:
            return False
    return True


def _numbers(version: str | None) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version or ""))
