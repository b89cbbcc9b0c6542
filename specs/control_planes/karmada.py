"""What Karmada must be set to, for version 1.17 and newer.

Five switches make Karmada move replicas off a lost cluster: the first three are flags below, the other two are objects of the
hub (ClusterTaintPolicy, clusterTolerations). Paths in comments are below github.com/karmada-io/karmada@v1.18.2.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from specs import propagation
from specs.control_planes.finding import Finding, nested, version_finding
from specs.failover import CapacityFailoverSpec

Component = Literal["karmada-controller-manager", "karmada-webhook", "karmada-scheduler"]

CONTROLLERS: Component = "karmada-controller-manager"
WEBHOOK: Component = "karmada-webhook"
SCHEDULER: Component = "karmada-scheduler"
COMPONENTS: tuple[Component, ...] = (CONTROLLERS, WEBHOOK, SCHEDULER)

GATES = "feature-gates"

OLDEST = (1, 17)
OLDEST_REASON = "before, every object of a lost cluster goes through the eviction queue, and the computed worst case is too short"

# Kinds that the program declares or reads on the hub.
KINDS: tuple[tuple[str, str], ...] = (
    ("cluster.karmada.io/v1alpha1", "Cluster"),
    ("policy.karmada.io/v1alpha1", "PropagationPolicy"),
    ("policy.karmada.io/v1alpha1", "ClusterPropagationPolicy"),
    ("policy.karmada.io/v1alpha1", "OverridePolicy"),
    ("policy.karmada.io/v1alpha1", "ClusterOverridePolicy"),
    ("policy.karmada.io/v1alpha1", "ClusterTaintPolicy"),
    ("config.karmada.io/v1alpha1", "ResourceInterpreterCustomization"),
    ("work.karmada.io/v1alpha1", "Work"),
    ("work.karmada.io/v1alpha2", "ResourceBinding"),
    ("apps.karmada.io/v1alpha1", "WorkloadRebalancer"),
)

# It would let administrators of the hub act as system:masters on every member, and needs rights on RBAC there
# (docs/member-rights.md). Without them its Works fail again and again.
UNWANTED_CONTROLLERS = ("unifiedAuth",)

# Controllers for features that cannot reach an InferenceService, or that the fleet does not use: FederatedHPA needs a
# /scale subresource, MultiClusterService and the endpoint slices are the mesh's task, remedies and agent CSRs belong to
# pull mode. Off, they save informers on every member.
UNUSED_CONTROLLERS = (
    "federatedHorizontalPodAutoscaler",
    "cronFederatedHorizontalPodAutoscaler",
    "serviceExport",
    "serviceImport",
    "endpointSlice",
    "endpointsliceCollect",
    "endpointsliceDispatch",
    "multiclusterservice",
    "remedy",
    "agentcsrapproving",
    *UNWANTED_CONTROLLERS,
)

NEEDED_CONTROLLERS = (
    "cluster",
    "clusterStatus",
    "binding",
    "bindingStatus",
    "execution",
    "workStatus",
    "namespace",
    "gracefulEviction",
    "clustertaintpolicy",
    "workloadRebalancer",
)

NEEDED_PLUGINS = ("APIEnablement", "ClusterAffinity", "ClusterEviction", "TaintToleration")

# API groups of what is propagated beside core kinds.
PROPAGATED_GROUPS = tuple(dict.fromkeys(each.group for each in propagation.KINDS if each.group))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One flag of one of Karmada's processes."""

    component: Component
    flag: str
    """Without the dashes."""
    gate: str = ""
    """Where the flag is --feature-gates: which gate."""
    upstream: str
    """What Karmada takes where the flag is not given."""
    value: str | None = None
    """What an installation of ours is given. None: Karmada's default is right, or `of` computes it."""
    of: Callable[[CapacityFailoverSpec], str] | None = None
    stack_field: str = ""
    """The field below failover.capacity that `of` reads."""
    why: str
    """What breaks where it is otherwise; a sentence without its full stop."""
    right: Callable[[str], str] | None = None
    """The right value that is nearest to the one found; without it only `value` is right."""
    required: bool = True
    verified: bool = True
    """False: a matter of our own installations only."""
    chart_key: str = ""
    """Dotted key in values.yaml of the chart charts/karmada; empty where the chart has none for it."""
    chart_default: str | None = None
    """What the chart sets where nobody says anything, if not `upstream`."""

    @property
    def name(self) -> str:
        return f"{self.component} --{self.flag}" + (f"={self.gate}" if self.gate else "")

    def expected(self, capacity: CapacityFailoverSpec) -> str:
        """What it should be set to where nothing stands yet."""
        return self.of(capacity) if self.of else self.value if self.value is not None else self.upstream

    def argument(self, value: str) -> str:
        return f"--{self.flag}={self.gate}={value}" if self.gate else f"--{self.flag}={value}"


def go_duration(seconds: float) -> str:
    """A duration as Go's flag package reads it."""
    return f"{seconds:g}s"


def _with(needed: Sequence[str], off: Sequence[str] = ()) -> Callable[[str], str]:
    """A list such as `*,-remedy` in which none of `needed` is off, and all of `off` are."""

    def right(found: str) -> str:
        items = [each.strip() for each in found.split(",") if each.strip()]
        kept = [each for each in items if each not in off and (each.removeprefix("-") not in needed or not each.startswith("-"))]
        added = [f"-{each}" for each in off if f"-{each}" not in kept] if "*" in kept else [each for each in needed if each not in kept]
        return ",".join([*kept, *added])

    return right


def _without_our_groups(found: str) -> str:
    """`--skipped-propagating-apis` is a list by semicolons of GROUP, GROUP/VERSION or GROUP/VERSION/KIND,KIND."""
    return ";".join(each for each in found.split(";") if each.strip().partition("/")[0] not in PROPAGATED_GROUPS)


def _without_our_namespaces(found: str) -> str:
    def skips(pattern: str) -> bool:
        try:
            return any(re.fullmatch(pattern, each) for each in propagation.NAMESPACES)
        except re.error:
            return False

    return ",".join(each for each in found.split(",") if not skips(each.strip()))


_EXTRA = "controllerManager.extraCommandArgs."


def _timing(flag: str, field: str, upstream: str, of: Callable[[CapacityFailoverSpec], str], why: str) -> Setting:
    return Setting(component=CONTROLLERS, flag=flag, stack_field=field, upstream=upstream, of=of, why=why, chart_key=_EXTRA + flag)


_RETRIES: tuple[tuple[Component, str], ...] = ((CONTROLLERS, _EXTRA + "rate-limiter-max-delay"), (SCHEDULER, ""))
_BUDGET = "the worst case of a failover is computed with it, and would be wrong"

SETTINGS: tuple[Setting, ...] = (
    Setting(
        component=CONTROLLERS,
        flag="controllers",
        value=f"*,{','.join('-' + name for name in UNUSED_CONTROLLERS)}",
        upstream="*",
        right=_with(NEEDED_CONTROLLERS, UNWANTED_CONTROLLERS),
        why="without clustertaintpolicy a lost cluster keeps its replicas, without gracefulEviction old copies stay, "
        "without workloadRebalancer no cluster gets its share back; unifiedAuth fails for ever on members, where Karmada has no rights on RBAC",
        chart_key="controllerManager.controllers",
        chart_default="",
    ),
    Setting(
        component=CONTROLLERS,
        flag=GATES,
        gate="Failover",
        value="true",
        # Beta, and off: pkg/features/features.go. What it starts: cmd/controller-manager/app/controllermanager.go.
        upstream="false",
        why="neither the controller of ClusterTaintPolicies nor the one that evicts is started: a lost cluster keeps its replicas, and nothing reports it",
        chart_key="controllerManager.featureGates.Failover",
    ),
    Setting(
        component=CONTROLLERS,
        flag=GATES,
        gate="PropagateDeps",
        upstream="true",
        why="what a model depends on (secrets, volumes, runtimes) does not arrive on the members, and nothing reports it",
        chart_key="controllerManager.featureGates.PropagateDeps",
        chart_default="false",
    ),
    Setting(
        component=CONTROLLERS,
        flag="enable-no-execute-taint-eviction",
        value="true",
        upstream="false",
        why="a lost cluster is tainted, and keeps its replicas: pkg/controllers/cluster/taint_manager.go returns early",
        chart_key=_EXTRA + "enable-no-execute-taint-eviction",
    ),
    Setting(
        component=CONTROLLERS,
        flag="enable-taint-manager",
        upstream="true",
        why="nothing is evicted from a lost cluster",
        chart_key=_EXTRA + "enable-taint-manager",
    ),
    _timing("cluster-status-update-frequency", "statusIntervalSeconds", "10s", lambda each: go_duration(each.status_interval_seconds), _BUDGET),
    _timing("cluster-failure-threshold", "failureThresholdSeconds", "30s", lambda each: go_duration(each.failure_threshold_seconds), _BUDGET),
    _timing("cluster-success-threshold", "successThresholdSeconds", "30s", lambda each: go_duration(each.success_threshold_seconds), _BUDGET),
    # The monitor looks after members in pull mode, of which the fleet has none. Short, so that a test of one would be.
    *(
        Setting(component=CONTROLLERS, flag=flag, value=value, upstream=upstream, why="for members in pull mode", verified=False)
        for flag, value, upstream in (
            ("cluster-monitor-period", "1s", "5s"),
            ("cluster-monitor-grace-period", "20s", "40s"),
            ("cluster-startup-grace-period", "60s", "60s"),
        )
    ),
    _timing(
        "resource-eviction-rate",
        "evictionsPerSecond",
        "0.5",
        lambda each: f"{each.evictions_per_second:g}",
        "models leave a lost cluster at this rate, and the worst case of a failover is computed with it",
    ),
    _timing("graceful-eviction-timeout", "gracefulTimeoutSeconds", "10m0s", lambda each: go_duration(each.graceful_timeout_seconds), _BUDGET),
    *(
        Setting(
            component=component,
            flag="rate-limiter-max-delay",
            value="10s",
            upstream="1000s",
            required=False,
            # The pause doubles from 5 ms with each failure.
            why="the longest pause between two attempts: what a member missed while it was away arrives up to this long after its return",
            chart_key=key,
        )
        for component, key in _RETRIES
    ),
    Setting(
        component=CONTROLLERS,
        flag="skipped-propagating-apis",
        upstream="",
        right=_without_our_groups,
        why="what it names never arrives on a member, and nothing reports it",
        chart_key=_EXTRA + "skipped-propagating-apis",
    ),
    Setting(
        component=CONTROLLERS,
        flag="skipped-propagating-namespaces",
        upstream="kube-.*",
        right=_without_our_namespaces,
        why=f"objects in `{'` and `'.join(propagation.NAMESPACES)}` do not arrive on the members",
        chart_key=_EXTRA + "skipped-propagating-namespaces",
    ),
    Setting(
        component=WEBHOOK,
        flag="allow-no-execute-taint-policy",
        value="true",
        upstream="false",
        why="the ClusterTaintPolicy that evicts models from a lost cluster is refused",
    ),
    Setting(
        component=SCHEDULER,
        flag="plugins",
        upstream="*",
        right=_with(NEEDED_PLUGINS),
        why="replicas return to the cluster that they were evicted from, or land on one that lacks the kind",
    ),
    Setting(
        component=SCHEDULER,
        flag="scheduler-name",
        upstream="default-scheduler",
        why="the policies of the fleet name no scheduler, and nothing is scheduled",
    ),
)

Flags = dict[str, dict[str, str]]


def flags(capacity: CapacityFailoverSpec) -> Flags:
    """What each process is given beyond ports, certificates and kubeconfigs: {component: {flag: value}}."""
    given: Flags = {component: {} for component in COMPONENTS}
    for each in SETTINGS:
        if each.value is None and each.of is None:
            continue
        value = each.expected(capacity)
        if each.gate:
            before = given[each.component].get(each.flag)
            value = ",".join([*([before] if before else []), f"{each.gate}={value}"])
        given[each.component][each.flag] = value
    return given


def of_settings(settings: Mapping[str, Any]) -> Flags:
    """The flags in the settings of a request to install or verify Karmada. Raises ValueError where they are not what `flags` made."""
    given: Flags = settings.get("flags") or {}
    if set(given) != set(COMPONENTS):
        raise ValueError(f"karmada: settings must hold the flags of {', '.join(COMPONENTS)}, got: `{', '.join(given) or 'nothing'}`\n  hint: make up")
    return given


def arguments(given: Flags, component: Component) -> list[str]:
    """Command line arguments of a process."""
    return [f"--{name}={value}" for name, value in given[component].items()]


def chart_values(capacity: CapacityFailoverSpec) -> dict[str, object]:
    """Values of the chart charts/karmada. It has none for further flags of the webhook and the scheduler: `post_render` lists those."""
    pairs: dict[str, object] = {}
    for each in SETTINGS:
        value = each.expected(capacity)
        default = each.upstream if each.chart_default is None else each.chart_default
        if each.chart_key and not same(value, default):
            pairs[each.chart_key] = value == "true" if each.gate else value
    return nested(pairs)


def post_render(capacity: CapacityFailoverSpec) -> Flags:
    """Flags that the chart has no values for: {component: {flag: value}}."""
    left: Flags = {}
    for each in SETTINGS:
        if not each.chart_key and each.verified and (each.value is not None or each.of is not None):
            left.setdefault(each.component, {})[each.flag] = each.expected(capacity)
    return left


# Verification of a Karmada that somebody else installed


@dataclass(frozen=True, kw_only=True)
class Process:
    """One of Karmada's processes, as a Deployment of its host cluster runs it."""

    namespace: str
    deployment: str
    image: str
    container: int
    """Place of the container in the pod."""
    command: tuple[str, ...]
    args: tuple[str, ...] = ()

    @property
    def given(self) -> dict[str, str]:
        return parse_flags([*self.command[1:], *self.args] if self.command else self.args)


def parse_flags(argv: Sequence[str]) -> dict[str, str]:
    """Flags as pflag reads them: the last one wins, but feature gates add up. A flag without a value is `true`."""
    found: dict[str, str] = {}
    items = iter([*argv, ""])
    item = next(items)
    while item:
        following = ""
        if item.startswith("--"):
            name, separator, value = item[2:].partition("=")
            if not separator:
                following = next(items)
                value, following = (following, "") if following and not following.startswith("-") else ("true", following)
            found[name] = f"{found[name]},{value}" if name == GATES and name in found else value
        item = following or next(items, "")
    return found


def process_of(deployment: dict[str, Any], component: Component) -> Process | None:
    """The process of a Deployment that is `component`, by the name of its binary: every installer uses the same."""
    for place, container in enumerate(deployment["spec"]["template"]["spec"]["containers"]):
        command, args = tuple(container.get("command") or ()), tuple(container.get("args") or ())
        binary = command[0] if command else container["name"]
        if binary.rsplit("/", 1)[-1] == component:
            metadata = deployment["metadata"]
            image = container.get("image", "")
            return Process(namespace=metadata["namespace"], deployment=metadata["name"], image=image, container=place, command=command, args=args)
    return None


def effective(setting: Setting, given: Mapping[str, str]) -> str | None:
    """What a process runs with, None where nobody said anything."""
    if not setting.gate:
        return given.get(setting.flag)
    gates: dict[str, str] = {}
    for item in given.get(GATES, "").split(","):
        name, _, value = item.strip().partition("=")
        gates[name] = value
    # Both gates here are Beta: AllAlpha says nothing about them.
    return gates.get(setting.gate, gates.get("AllBeta"))


def findings(processes: Mapping[Component, Process], given: Flags) -> list[Finding]:
    """What is set otherwise than it must be. `given`: what `flags` made of the stack file."""
    found: list[Finding] = []
    for component in COMPONENTS:
        process = processes.get(component)
        if process is None:
            found.append(_absent(component))
        else:
            found += [each for setting in SETTINGS if setting.component == component and setting.verified for each in _compare(setting, process, given)]
    if CONTROLLERS in processes:
        found += version_finding("Karmada", processes[CONTROLLERS].image, OLDEST, OLDEST_REASON)
    return found


def _absent(component: Component) -> Finding:
    return Finding(
        setting=component,
        wrong="must run as a Deployment of the cluster that hub.driver.host leads to: its flags cannot be verified",
        got="no such Deployment",
        hint="kubectl get deployments --all-namespaces | grep karmada: is it the cluster in which Karmada runs, and may the kubeconfig list Deployments?",
    )


def _compare(setting: Setting, process: Process, given: Flags) -> Iterator[Finding]:
    value = effective(setting, process.given)
    current = setting.upstream if value is None else value
    expected = given[setting.component].get(setting.flag) if setting.of else setting.value if setting.value is not None else setting.upstream
    right = setting.right(current) if setting.right else str(expected)
    if same(current, right):
        return
    yield Finding(
        setting=setting.name,
        wrong=f"must be `{right}`: {setting.why}",
        got=value if value is not None else f"not set, which is {setting.upstream}",
        hint=_fix(setting, process, current, right),
        required=setting.required,
    )


def _fix(setting: Setting, process: Process, current: str, right: str) -> str:
    argument = setting.argument(right)
    commands = [f"kubectl -n {process.namespace} patch deployment {process.deployment} --type json -p '{json.dumps(_patch(setting, process, argument))}'"]
    if setting.chart_key:
        commands.append(f"with Helm: --set-string {setting.chart_key}={right.replace(',', chr(92) + ',')}")
    if setting.stack_field:
        seconds = _seconds(current)
        commands.append(f"or in the stack file: failover.capacity.{setting.stack_field}: {current if seconds is None else f'{seconds:g}'}")
    return "\n        ".join(commands)


def _patch(setting: Setting, process: Process, argument: str) -> list[dict[str, Any]]:
    """Replaces the flag where it stands, else adds it. A second --feature-gates adds to the first."""
    base = f"/spec/template/spec/containers/{process.container}"
    # What a process reads last wins.
    lists = [(where, items) for where, items in (("args", process.args), ("command", process.command)) if items]
    if not setting.gate:
        for where, items in lists:
            for place in reversed(range(len(items))):
                if items[place].startswith(f"--{setting.flag}="):
                    return [{"op": "replace", "path": f"{base}/{where}/{place}", "value": argument}]
    if not lists:
        return [{"op": "add", "path": f"{base}/args", "value": [argument]}]
    return [{"op": "add", "path": f"{base}/{lists[0][0]}/-", "value": argument}]


def unverified() -> Finding:
    """What cannot be verified through Karmada's own API."""
    unseen = [each for each in SETTINGS if each.verified and each.component != WEBHOOK]
    return Finding(
        setting="version of Karmada, flags of karmada-controller-manager and karmada-scheduler",
        wrong="cannot be verified through Karmada's API, and with Karmada's defaults a lost cluster keeps its replicas",
        got="no hub.driver.host",
        hint=f"set hub.driver.host.kubeconfigPath: a kubeconfig of the cluster in which Karmada runs. docs/existing-clusters.md has the {len(unseen)} settings",
        required=False,
    )


def refused_taint_policy(message: str) -> Finding:
    """The answer of Karmada's webhook to a dry run of a ClusterTaintPolicy with the effect NoExecute."""
    [setting] = [each for each in SETTINGS if each.component == WEBHOOK]
    path = "/spec/template/spec/containers/0/command/-"
    patch = json.dumps([{"op": "add", "path": path, "value": setting.argument("true")}])
    hint = f"in the cluster in which Karmada runs: kubectl -n karmada-system patch deployment karmada-webhook --type json -p '{patch}'"
    return Finding(setting=setting.name, wrong=f"must be `true`: {setting.why}", got=message, hint=hint)


def copy_crds(*names: str) -> str:
    """The command that takes CRDs of propagated kinds from a member to the hub.

    Not the charts of KServe and Istio: their webhooks have no server there and would refuse what the fleet declares. No conversion
    either, for the same reason.
    """
    taken = '(.items // [.])[] | {apiVersion, kind, metadata: {name: .metadata.name}, spec: (.spec | .conversion = {strategy: "None"})}'
    return f"kubectl --context MEMBER get crd {' '.join(names)} -o json | jq '{taken}' | kubectl --context HUB apply --server-side -f -"


def propagated_crds() -> list[str]:
    """Names of the CRDs that the hub needs beside Karmada's own."""
    return [f"{each.resource}.{each.group}" for each in propagation.KINDS if each.served_by != "Kubernetes"]


def without_failback(got: str) -> Finding:
    """Of the failback controller, which is no part of Karmada and which the program does not install beside one of somebody else."""
    return Finding(
        setting="failback controller",
        wrong="must run beside Karmada: a region that comes back gets none of its replicas without it",
        got=got,
        hint="deploy it by hand: docs/failback.md, section `Beside a Karmada that somebody else runs`",
        required=False,
    )


_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "ns": 1e-9}


def _seconds(text: str) -> float | None:
    """A duration of Go in seconds, such as 10m0s; None where it is none."""
    parts = re.findall(r"([0-9.]+)(h|ms|us|µs|ns|m|s)", text)
    return sum(float(number) * _UNITS[unit] for number, unit in parts) if parts and "".join(a + b for a, b in parts) == text else None


def same(found: str, right: str) -> bool:
    """Whether two values of a flag mean the same: 10m0s is 600s, 1 is true, 10.0 is 10."""
    if found == right:
        return True
    durations = _seconds(found), _seconds(right)
    if None not in durations:
        return durations[0] == durations[1]
    if right in ("true", "false"):
        return found.lower() in ({"true", "t", "1"} if right == "true" else {"false", "f", "0"})
    try:
        return float(found) == float(right)
    except ValueError:
        return False
