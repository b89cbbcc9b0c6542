"""What `fleet bench` leaves: what was asked of which endpoint, and how it answered. Plain data, kept as JSON.

Times are seconds, rates are per second, whatever the tool that measured them uses. docs/benchmarks.md shows the file.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

# Of the file. A reader refuses another one.
VERSION = 1

FRONT_DOOR, REGIONAL_GATEWAY = "front door", "regional gateway"
# What an answer is told to have failed of that vLLM takes for a whole one.
SHORT = "the answer ended before its length"


_Count = Annotated[int, Field(ge=0)]
_Amount = Annotated[float, Field(ge=0)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, alias_generator=to_camel, validate_by_name=True, use_attribute_docstrings=True)


class Machine(_Plain):
    """Where the load was made; of a local fleet, where everything ran."""

    cores: int
    memory_gib: float
    system: str
    load: float
    """Load of a minute before the first request."""


class BenchLoad(_Plain):
    """What each endpoint was asked, one endpoint after another."""

    requests: int
    rate: float | None
    """Requests per second, at the random moments of a Poisson process. None: as soon as `concurrency` lets them."""
    concurrency: int | None
    """Requests under way at most; the load waits, and the rate is not reached. None: they are sent when due."""
    input_tokens: int
    """Random tokens of a prompt, before the model's chat template."""
    output_tokens: int
    """Tokens of every answer: engines are told to go on to this length."""
    warmups: int
    """Requests before the first that counts."""
    seed: int
    """Of prompts and moments. Each endpoint has the next one: prompts that an engine has seen are answered from its cache."""


class Objectives(_Plain):
    """Those of the model that a single request keeps or not. None: not declared."""

    time_to_first_token_seconds: float | None = None
    inter_token_seconds: float | None = None


class Serving(_Plain):
    """How the model is declared in one cluster."""

    accelerator: str
    accelerators: Annotated[int, Field(ge=0, le=16)]
    """Of a replica; with `cpu` it says nothing."""
    replicas: _Count
    image: str
    arguments: tuple[str, ...]
    """Of vLLM, those of the model alone."""


class Percentiles(_Plain):
    """Seconds."""

    mean: _Amount
    p50: float
    p95: float
    p99: float


class Measured(_Plain):
    """How one endpoint answered."""

    kind: Literal["front door", "regional gateway"]
    """A regional gateway leads into its own cluster only, a front door to any that serves the model."""
    cluster: str
    region: str
    url: str
    ok: _Count
    """Answered to the end."""
    failed: int
    """Refused, broken off, or ended before the length that was asked for."""
    errors: Mapping[str, int]
    """What failed requests were told, and how many of them."""
    seconds: float
    """From the first request to the end of the last."""
    input_tokens: _Count
    """As the engine counts them, chat template included; of answered requests."""
    output_tokens: _Count
    requests_per_second: _Amount
    output_tokens_per_second: _Amount
    peak_output_tokens_per_second: float
    """In the best second."""
    peak_concurrency: int
    """Requests under way in the fullest second."""
    good: int | None
    """Answered requests that kept all declared objectives; None where none is declared."""
    first_token: Percentiles | None
    """From sending to the first token. None, as those below, where there was nothing of the kind."""
    between_tokens: Percentiles | None
    """Every gap between two pieces of an answer, of all answers together."""
    per_output_token: Percentiles | None
    """Of an answer, the mean time of a token after the first; inter_token_seconds is judged by it."""
    whole_answer: Percentiles | None
    """From sending to the last token."""

    @property
    def goodput(self) -> float | None:
        """Requests per second that kept the objectives."""
        return None if self.good is None or not self.seconds else self.good / self.seconds


class BenchResult(_Plain):
    """One `fleet bench`."""

    started: Annotated[float, Field(ge=0, lt=1e11)]
    """Seconds since the epoch."""
    machine: Machine
    stack: str
    model: str
    source: str
    tokenizer: str
    vllm: str
    """Version of the vLLM whose `bench serve` measured."""
    load: BenchLoad
    objectives: Objectives
    serving: Mapping[str, Serving]
    """Of each cluster that serves the model."""
    endpoints: tuple[Measured, ...]

    def to_json(self) -> str:
        return _File(version=VERSION, **dict(self)).model_dump_json(by_alias=True, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Raises ValueError where `text` is not what to_json wrote."""
        try:
            read = _File.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            raise ValueError(f"not the result of a benchmark: {'.'.join(map(str, first['loc'])) or 'JSON'}: {first['msg']}") from None
        return cls(**{name: value for name, value in read if name != "version"})


class _File(BenchResult):
    version: Literal[1]


def percentiles(told: Mapping[str, Any], name: str) -> Percentiles:
    """One measure of vLLM's result. Raises KeyError where it is not there."""
    found = {"mean": told[f"mean_{name}_ms"], **{key: told[f"{key}_{name}_ms"] for key in ("p50", "p95", "p99")}}
    return Percentiles(**{key: float(value) / 1000 for key, value in found.items()})


def measured(
    told: Mapping[str, Any], errors: Mapping[str, int], short: int, *, kind: Literal["front door", "regional gateway"], cluster: str, region: str, url: str
) -> Measured:
    """From the result of `vllm bench serve`, as its --save-result writes it.

    short: answers that vLLM counts and that ended too early. Their tokens and times are in the figures, as they were in the
    engine's. Raises ValueError where something of the result is missing.
    """
    try:
        answered = bool(told["completed"])
        several = told["total_output_tokens"] > told["completed"]
        goodput = told["request_goodput"]
        return Measured(
            kind=kind,
            cluster=cluster,
            region=region,
            url=url,
            ok=told["completed"] - short,
            failed=told["failed"] + short,
            errors={**errors, **({SHORT: short} if short else {})},
            seconds=told["duration"],
            input_tokens=told["total_input_tokens"],
            output_tokens=told["total_output_tokens"],
            requests_per_second=told["request_throughput"],
            output_tokens_per_second=told["output_throughput"],
            peak_output_tokens_per_second=told["max_output_tokens_per_s"],
            peak_concurrency=told["max_concurrent_requests"],
            good=None if goodput is None else round(goodput * told["duration"]),
            # Of what there was not vLLM writes zeros, as if it had been immediate.
            first_token=percentiles(told, "ttft") if answered else None,
            between_tokens=percentiles(told, "itl") if several else None,
            per_output_token=percentiles(told, "tpot") if several else None,
            whole_answer=percentiles(told, "e2el") if answered else None,
        )
    except KeyError as error:
        raise ValueError(f"vLLM's result has no `{error.args[0]}`") from None
