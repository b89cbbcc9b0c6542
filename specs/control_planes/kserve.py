"""What KServe must be set to on every member, for version 0.16 and newer: sections of its ConfigMap inferenceservice-config.

Each section is a JSON object in one key of the ConfigMap. Paths in comments are below github.com/kserve/kserve@v0.20.0.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from specs.control_planes.finding import Finding, nested, version_finding

NAMESPACE = "kserve"
CONFIG = "inferenceservice-config"
MANAGER = "kserve-controller-manager"

OLDEST = (0, 16)
OLDEST_REASON = "the deployment mode `Standard` has another name before"

# What Karmada writes on the objects it puts into a member (pkg/util/constants.go, pkg/apis/*/well_known_constants.go of Karmada).
KARMADA_ANNOTATIONS = (
    "clusterpropagationpolicy.karmada.io/name",
    "clusterresourcebinding.karmada.io/name",
    "policy.karmada.io/applied-cluster-overrides",
    "policy.karmada.io/applied-overrides",
    "policy.karmada.io/applied-placement",
    "propagationpolicy.karmada.io/name",
    "propagationpolicy.karmada.io/namespace",
    "resourcebinding.karmada.io/dependencies",
    "resourcebinding.karmada.io/name",
    "resourcebinding.karmada.io/namespace",
    "resourcetemplate.karmada.io/generation",
    "resourcetemplate.karmada.io/managed-annotations",
    "resourcetemplate.karmada.io/managed-labels",
    "resourcetemplate.karmada.io/uid",
    "work.karmada.io/conflict-resolution",
    "work.karmada.io/name",
    "work.karmada.io/namespace",
)

Section = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One key of one section."""

    section: str
    key: str
    value: Any
    """What an installation of ours is given."""
    why: str
    """What breaks where it is otherwise; a sentence without its full stop."""
    accepts: Callable[[Section], bool]
    """Whether the section of a provided KServe, {} where it has none, is right in this."""
    required: bool = True
    shipped: bool = False
    """Whether a release ships it right."""
    verified: bool = True
    """False: a matter of our own installations only."""
    chart_key: str = ""
    """Dotted key in values.yaml of the chart kserve-resources; empty where the chart has none for it."""

    @property
    def name(self) -> str:
        return f"KServe's ConfigMap {NAMESPACE}/{CONFIG}, section {self.section}, {self.key}"

    def merged(self, section: Section) -> Any:
        """The value to set in this section. A list is added to."""
        if isinstance(self.value, list):
            present: list[str] = section.get(self.key) or []
            return [*present, *(each for each in cast(list[str], self.value) if each not in present)]
        return self.value


def _oci_mode(storage: Section) -> str:
    """How a model's image gets into its pods, "" where not at all: ResolveOciModelMode, pkg/types/config.go."""
    return storage.get("ociModelMode") or ("modelcar" if storage.get("enableModelcar") or storage.get("enableOciModelSupport") else "")


SETTINGS: tuple[Setting, ...] = (
    Setting(
        section="deploy",
        key="defaultDeploymentMode",
        value="Standard",
        # KServe takes the old name for the same: pkg/apis/serving/v1beta1/configmap.go.
        accepts=lambda deploy: deploy.get("defaultDeploymentMode") in ("Standard", "RawDeployment"),
        why="models of the fleet name their mode themselves, and an InferenceService that names none would need Knative",
        required=False,
        chart_key="kserve.controller.deploymentMode",
    ),
    Setting(
        section="ingress",
        key="disableIngressCreation",
        value=True,
        accepts=lambda ingress: ingress.get("disableIngressCreation") is True,
        why="KServe makes an Ingress or a route for each model, which leads past the front door, its authentication and its failover",
        chart_key="kserve.controller.gateway.disableIngressCreation",
    ),
    Setting(
        section="inferenceService",
        key="serviceAnnotationDisallowedList",
        value=list(KARMADA_ANNOTATIONS),
        accepts=lambda service: set(KARMADA_ANNOTATIONS) <= set(service.get("serviceAnnotationDisallowedList") or ()),
        # The list matches whole keys only. `resourcetemplate.karmada.io/generation` changes on each edit, even of maxReplicas.
        why="KServe copies every other annotation of an InferenceService to its pods, so that each edit on the hub restarts all GPU pods of the model",
    ),
    Setting(
        section="storageInitializer",
        key="enableOciModelSupport",
        value=True,
        accepts=lambda storage: bool(storage.get("enableOciModelSupport")),
        why="an older switch for the same as ociModelMode, which goes before it",
        shipped=True,
        verified=False,
    ),
    Setting(
        section="storageInitializer",
        key="ociModelMode",
        # A model's image is mounted, not run beside the model: a local node agent has no file systems of containers that one
        # could look into. Elsewhere any mode serves.
        value="native",
        accepts=lambda storage: _oci_mode(storage) in ("native", "modelcar", "fetch"),
        why="models from `oci://` do not start",
        shipped=True,
    ),
    Setting(
        section="service",
        key="serviceClusterIPNone",
        value=False,
        accepts=lambda service: not service.get("serviceClusterIPNone"),
        # Nor does Istio select WorkloadEntries for a headless Service.
        why="a Service of a model has no cluster IP, and the regional gateway loses its endpoints",
        shipped=True,
        chart_key="kserve.service.serviceClusterIPNone",
    ),
)


def configuration(shipped: Mapping[str, str]) -> dict[str, str]:
    """Data of the ConfigMap: what a release ships, with the changes that the fleet needs."""
    # _example is 30 KB of documentation.
    data = {key: value for key, value in shipped.items() if key != "_example"}
    for section in dict.fromkeys(each.section for each in SETTINGS):
        changed = {each.key: each.value for each in SETTINGS if each.section == section}
        data[section] = json.dumps({**json.loads(data.get(section, "{}")), **changed}, indent=1)
    return data


def chart_values() -> dict[str, Any]:
    """Values of the chart kserve-resources. It has none for the rest: `set_with_jq` sets it after every installation and upgrade."""
    return nested({each.chart_key: each.value for each in SETTINGS if each.chart_key and not each.shipped})


def set_with_jq() -> str:
    """A command that sets what a release ships otherwise, chart value or not, and keeps what else is configured."""
    needed = [each for each in SETTINGS if not each.shipped]
    changes: list[str] = []
    for section in dict.fromkeys(each.section for each in needed):
        sets = [_assignment(each) for each in needed if each.section == section]
        changes.append(f'.data.{section} = ((.data.{section} // "{{}}") | fromjson | {" | ".join(sets)} | tojson)')
    program = "\n  | ".join(changes)
    return f"kubectl -n {NAMESPACE} get configmap {CONFIG} -o json | jq '\n    {program}' | kubectl replace -f -\n{RESTART}"


def _assignment(setting: Setting) -> str:
    value = json.dumps(setting.value)
    return f".{setting.key} = (((.{setting.key} // []) + {value}) | unique)" if isinstance(setting.value, list) else f".{setting.key} = {value}"


# Part of the configuration is read at start only.
RESTART = f"kubectl -n {NAMESPACE} rollout restart deployment {MANAGER}"


# Verification of a KServe that somebody else installed


def findings(data: Mapping[str, str] | None) -> list[Finding]:
    """What is set otherwise than it must be. `data` of the ConfigMap, None where there is none."""
    if data is None:
        return [
            Finding(
                setting=f"KServe's ConfigMap {NAMESPACE}/{CONFIG}",
                wrong="must exist: KServe reads its settings from it",
                got="no such ConfigMap",
                hint=f"install KServe {'.'.join(map(str, OLDEST))} or newer in namespace {NAMESPACE}: docs/existing-clusters.md",
            )
        ]
    return [each for section in dict.fromkeys(setting.section for setting in SETTINGS) for each in _section(section, data)]


def _section(section: str, data: Mapping[str, str]) -> Iterator[Finding]:
    try:
        read: Any = json.loads(data.get(section) or "{}")
    except ValueError:
        read = None
    if not isinstance(read, dict):
        hint = f"kubectl -n {NAMESPACE} edit configmap {CONFIG}"
        yield Finding(
            setting=f"KServe's ConfigMap {NAMESPACE}/{CONFIG}, section {section}", wrong="must be a JSON object", got=data.get(section, ""), hint=hint
        )
        return
    found = cast(Section, read)
    for setting in SETTINGS:
        if setting.section == section and setting.verified and not setting.accepts(found):
            yield Finding(
                setting=setting.name,
                wrong=f"must {'contain' if isinstance(setting.value, list) else 'be'} `{_shown(setting.value)}`: {setting.why}",
                got=_shown(found[setting.key]) if setting.key in found else "not set",
                hint=patch(section, found),
                required=setting.required,
            )


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def patch(section: str, found: Section) -> str:
    """The command that sets every setting of a section and keeps what else stands in it."""
    changes = {each.key: each.merged(found) for each in SETTINGS if each.section == section and (each.verified or each.key in found)}
    # One section is one string of the ConfigMap, so that all of it is in the patch.
    merge = json.dumps({"data": {section: json.dumps({**found, **changes})}})
    quoted = merge.replace("'", "'\\''")
    return f"kubectl -n {NAMESPACE} patch configmap {CONFIG} --type merge -p '{quoted}'\n        then, once for all: {RESTART}"


def manager_findings(image: str | None) -> list[Finding]:
    """The version of KServe's controller, None where no Deployment of it is there."""
    if image is None:
        setting, wrong = f"KServe's Deployment {NAMESPACE}/{MANAGER}", "is where the version of KServe is read, which cannot be verified"
        return [
            Finding(setting=setting, wrong=wrong, got="no such Deployment", hint=f"kubectl get deployments --all-namespaces | grep {MANAGER}", required=False)
        ]
    return version_finding("KServe", image, OLDEST, OLDEST_REASON)
