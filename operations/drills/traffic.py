"""The requests of a drill: how many, how fast, and what rate the machine serves without a fault."""

import math
from collections.abc import Sequence
from dataclasses import replace

from core.errors import FleetError
from operations.drills.case import Doors, Plan, Say, shortest
from operations.drills.faults import mock_engine
from operations.drills.load import TIMEOUT_S, Record, Traffic
from operations.drills.load import run as load_run

MAIN, PUBLISHED = "main", "published"

# Per second, where nobody chose. vLLM on CPU is tried with less and less until the machine serves it.
_MOCK_RATE, _STREAM_RATE, _VLLM_RATE, _LEAST_RATE = 100.0, 25.0, 50.0, 2.0
_VLLM_SECONDS = 90.0
_CALIBRATION_S = 4.0
# Tokens of an answer: a stream must be under way when the fault comes.
_TOKENS, _STREAM_TOKENS = 8, 64


def tokens(plan: Plan) -> int:
    return plan.options.tokens or (_STREAM_TOKENS if plan.options.stream else _TOKENS)


def first_rate(plan: Plan) -> float:
    """Requests per second, of all loads together, that are tried first."""
    if plan.options.rate is not None:
        return plan.options.rate
    if not plan.mocked:
        return _VLLM_RATE
    return plan.case.mock_rate or (_STREAM_RATE if plan.options.stream else _MOCK_RATE)


def traffic(plan: Plan, label: str, rate: float, requests: int) -> Traffic:
    model = mock_engine.PUBLISHED if label == PUBLISHED else plan.path
    stream = plan.options.stream
    return Traffic(
        label=label,
        model=model,
        targets=[(door, plan.url(door, model)) for door in plan.doors],
        rate=rate,
        requests=requests,
        stream=stream,
        max_tokens=tokens(plan),
        timeout_seconds=TIMEOUT_S,
        switch_doors=plan.case.doors is Doors.VICTIM_FIRST,
        token=plan.options.token,
    )


def labels(plan: Plan) -> list[str]:
    return [MAIN, PUBLISHED] if plan.options.baseline else [MAIN]


def keeps_up(records: Sequence[Record]) -> str:
    """Why the machine does not serve these requests as they come; empty where it does."""
    bad = [each for each in records if each["outcome"] != "ok"]
    if bad:
        return f"{len(bad)} of {len(records)} requests failed: {bad[0]['outcome']} {bad[0].get('error') or bad[0].get('status') or ''}".rstrip()
    took = [each["end"] - each["due"] for each in records]
    half = len(took) // 2
    before, after = sorted(took[:half]), sorted(took[half:])
    if before and after[len(after) // 2] > 2 * before[half // 2] + 0.05:
        return f"answers take longer and longer: {before[half // 2] * 1000:.0f} ms, then {after[len(after) // 2] * 1000:.0f} ms"
    return ""


def calibrate(plan: Plan, say: Say) -> tuple[float, float]:
    """(requests per second, the longest wait for a first token without a fault). Raises FleetError where it is too much."""
    # Mock engines that are made for a rate have no other.
    fixed = plan.options.rate is not None or plan.case.own_load
    rate = first_rate(plan)
    while True:
        # The first moments of a process say nothing of the later ones.
        each_rate = rate / len(labels(plan))
        count = max(6, round(each_rate * _CALIBRATION_S))
        plans = [traffic(plan, label, each_rate, count) for label in labels(plan)]
        load_run([replace(each, requests=max(6, count // 4)) for each in plans])
        records = [each for each in load_run(plans) if each["label"] == MAIN]
        why = keeps_up(records)
        if not why:
            waits = sorted(each["firstToken"] - each["due"] for each in records if each["firstToken"] is not None)
            say(f"{rate:g} requests/s without a fault: median {waits[len(waits) // 2] * 1000:.0f} ms, worst {waits[-1] * 1000:.0f} ms")
            return rate, waits[-1]
        if fixed or rate / 2 < _LEAST_RATE:
            raise FleetError(f"this machine does not serve {rate:g} requests/s without a fault: {why}", hint=f"--rate {max(1, round(rate / 2))}")
        say(f"{rate:g} requests/s are too many: {why}")
        rate /= 2


def planned(plan: Plan, rate: float) -> int:
    """Requests of each load, so that every part has its time."""
    least = math.ceil(shortest(plan.case) * rate)
    if plan.options.requests is None:
        return max(least, plan.case.mock_requests if plan.mocked else round(_VLLM_SECONDS * rate))
    return max(least, plan.options.requests)
