"""What a drill leaves: the plan, the moments, every request and every look at the doors. Plain data, kept as JSON.

Nothing in it is computed from the measurement; that is analysis.py. One result is one load against one model: a run that
compares two settings leaves two, with the same fault at the same moment.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

# Version of the file. A reader refuses another one.
VERSION = 1

Record = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class LoadPlan:
    """What callers did. Requests are sent when they are due, whatever happened to others."""

    doors: Sequence[str]
    """Clusters whose front doors were used, in turn."""
    requests: int
    rate: float
    """Requests per second over all doors."""
    stream: bool
    max_tokens: int
    timeout_seconds: float
    switch_doors: bool = False
    """Callers that know several addresses: one that does not get through goes to the next."""


@dataclass(frozen=True, kw_only=True)
class DoorSample:
    """One look at the front doors of the load, `at` seconds after its begin. A door that did not answer is left out.

    sent: what a door had sent to each cluster so far, retries included and active health checks not: {door: {cluster: count}}.
    flags: why a door keeps out a cluster, by Envoy's names (`failed_active_health_check`, `failed_outlier_check`, …); one
    that is not kept out is not named: {door: {cluster: [flag]}}.
    """

    at: float
    sent: Mapping[str, Mapping[str, int]]
    flags: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict[str, dict[str, list[str]]])


@dataclass(frozen=True, kw_only=True)
class DrillResult:
    """One run of one case, for one model."""

    case: str
    stack: str
    victim: str
    """The cluster that was harmed; empty where it was none in particular."""
    model: str
    clusters: Sequence[str]
    """Those that serve the model, in failover order. An answer of another one is an error of its own."""
    regions: Mapping[str, str]
    """Region of each cluster of the stack that has a front door."""
    backend: Literal["vllm", "stand-in"]
    """What computed the answers. A stand-in is a server of ours behind the same gateways, fast enough for statistics."""
    settings: Literal["declared", "published"] = "declared"
    """Whose settings the model had: the stack's, or those that articles publish, for comparison."""
    load: LoadPlan
    started: float
    """Begin of the load in seconds since the epoch: all other times count from it."""
    marks: Mapping[str, float]
    """Moments in seconds. `fault`: the injection began; `heal`: the mending began; `healthy`: the mended region can serve,
    asked directly; `all-down`: from here on no region can serve, or all are full; `end`. Of the case `replace` also `lost`
    (Karmada takes the cluster for lost), `replaced` (the model is Ready elsewhere with all its replicas), `agreed` (hub and
    mesh tell the same clusters). What a case does not have is left out."""
    requests: Sequence[Record]
    """As fleet-load told them."""
    samples: Sequence[DoorSample] = ()
    computed: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the settings promise, seconds: `added`, `left`, `back`, `refused`, `replaced`. None is no bound; what does not
    apply to the case is left out."""
    objectives: Mapping[str, float] = field(default_factory=dict[str, float])
    """The model's declared objectives, by their names in the stack file."""
    resume: bool = False
    """The stack lets a stream that was cut go on in another region."""
    run: int = 1
    """Number of this run among equal ones."""
    machine: str = ""
    """Cores, memory and load of the machine before the drill."""
    notes: Sequence[str] = ()
    """What a reader must know to understand the numbers, a sentence each."""

    def to_json(self) -> str:
        return json.dumps({"version": VERSION, **asdict(self)})

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where `text` is not what to_json wrote."""
        try:
            data: dict[str, Any] = json.loads(text)
            version = data.pop("version", None)
            if version != VERSION:
                raise ValueError(f"version: must be `{VERSION}`, got: `{version}`")
            data["load"] = LoadPlan(**data["load"])
            data["samples"] = [DoorSample(**each) for each in data["samples"]]
            return cls(**data)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not the result of a drill: {error}") from None
