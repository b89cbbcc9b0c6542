"""Results of drills for tests: what fleet-load and the doors would have told, made up."""

from dataclasses import replace
from typing import Any

from operations.drills.result import DoorSample, DrillResult, LoadPlan

FAULT, HEAL, HEALTHY, END = 10.0, 20.0, 24.0, 30.0
MARKS = {"fault": FAULT, "heal": HEAL, "healthy": HEALTHY, "end": END}


def record(due: float, took: float | None = 0.01, **changes: Any) -> dict[str, Any]:
    """A request that was answered by us-east, as fleet-load writes it, with `changes`."""
    end = None if took is None else due + took
    return {
        "label": "main",
        "n": round(due * 10),
        "door": "us-west",
        "due": due,
        "sent": due,
        "headers": end,
        "firstToken": end,
        "end": end,
        "status": 200,
        "cluster": "us-east",
        "revision": "abc",
        "outcome": "ok",
        "tokens": 1,
        "resumed": False,
        "switched": 0,
        "retryAfter": None,
        "error": "",
        **changes,
    }


def refused(due: float, status: int, took: float = 0.01, **changes: Any) -> dict[str, Any]:
    return record(due, took, firstToken=None, status=status, cluster=None, revision=None, outcome="status", **changes)


def records(begin: float, end: float, cluster: str = "us-east", step: float = 0.1, **changes: Any) -> list[dict[str, Any]]:
    return [record(begin + place * step, cluster=cluster, **changes) for place in range(round((end - begin) / step))]


def door_samples(left_after: float = 0.1) -> list[DoorSample]:
    """Every 50 ms: us-west is sent requests until `left_after` seconds after the fault, and again once it can serve."""
    counted, samples = 0, list[DoorSample]()
    for place in range(round(END * 20)):
        at = place / 20
        counted += at <= FAULT + left_after + 1e-9 or at > HEALTHY
        samples.append(DoorSample(at=at, sent={"eu-west": {"us-west": counted, "us-east": 7}}))
    return samples


def drilled(case: str = "kill", **changes: Any) -> DrillResult:
    """A drill in which all went well: us-west answers, is lost at 10 s, can serve again at 24 s and answers from 25 s on."""
    load = LoadPlan(doors=["us-east", "eu-west"], requests=300, rate=10, stream=False, max_tokens=8, timeout_seconds=20)
    well = [*records(0, FAULT, "us-west"), *records(FAULT, 25), *records(25, END, "us-west")]
    return replace(
        DrillResult(
            case=case,
            stack="local",
            victim="us-west",
            model="tiny-chat",
            clusters=["us-east", "us-west"],
            regions={"us-east": "us-east", "us-west": "us-west", "eu-west": "eu-west"},
            backend="stand-in",
            load=load,
            started=1_790_000_000.0,
            marks=MARKS,
            requests=well,
            samples=door_samples(),
        ),
        **changes,
    )


def streamed(result: DrillResult, *, resume: bool = True, under_way: int = 3) -> DrillResult:
    """The same with streams, of which some of us-west were under way when it was lost, and went on elsewhere."""
    cut = [record(9.5, 2.0, firstToken=9.6, headers=9.6, cluster="us-west", resumed=resume) for _ in range(under_way)]
    return replace(result, load=replace(result.load, stream=True), resume=resume, requests=[*result.requests, *cut])
