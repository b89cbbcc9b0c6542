"""The cases of drills, one module each. How to write one is in docs/drills.md."""

from collections.abc import Mapping

from operations.drills.case import Case
from operations.drills.cases import (
    all_down,
    blackhole,
    drain,
    engine_hang,
    flap,
    gateway,
    hang,
    hub_down,
    kill,
    overload,
    replace,
    residency,
)

_MODULES = (kill, hang, blackhole, engine_hang, overload, drain, hub_down, flap, all_down, gateway, replace, residency)

# In the order of `fleet drill all` and of the rows of the report.
CASES: Mapping[str, Case] = {each.CASE.name: each.CASE for each in _MODULES}
EVERY = "all"
