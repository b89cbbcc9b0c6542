"""Kubernetes quantities in their canonical form, `1000m` as `1`.

The API server stores the canonical form of a built-in kind, and the official provider records it as the input. Without
it every preview would show `1000m` against `1`. Rules: k8s.io/apimachinery/pkg/api/resource, Quantity.CanonicalizeBytes.
"""

import re
from fractions import Fraction
from math import ceil
from typing import Any

_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_PATTERN = re.compile(r"^([+-]?(?:\d+(?:\.\d*)?|\.\d+))(Ki|Mi|Gi|Ti|Pi|Ei|[numkMGTPE]|[eE][+-]?\d+)?$")

# Keys whose value is an object of quantities, in any built-in kind.
_MAPS = frozenset({"limits", "requests", "capacity", "allocatable", "hard", "overhead"})
_LIMIT_RANGE_MAPS = frozenset({"max", "min", "default", "defaultRequest", "maxLimitRequestRatio"})
_SCALARS = frozenset({"sizeLimit", "averageValue", "divisor"})


def canonical(value: Any) -> Any:
    """The canonical text of a quantity, or `value` itself where it is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return value
    match = _PATTERN.match(str(value))
    if not match:
        return value
    digits, suffix = match[1], match[2] or ""
    binary = suffix in _BINARY
    exponent = suffix[:1] in ("e", "E") and suffix not in _DECIMAL
    power = int(suffix[1:]) if exponent else _DECIMAL.get(suffix, 0)
    number = Fraction(digits) * (2 ** _BINARY[suffix] if binary else Fraction(10) ** power)
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    number = abs(number)
    if binary and number.denominator == 1 and number >= 1024:
        whole, steps = int(number), 0
        while whole % 1024 == 0 and steps < len(_BINARY):
            whole, steps = whole // 1024, steps + 1
        return f"{sign}{whole}{['', *_BINARY][steps]}"
    # Nothing finer than a billionth is kept; it is rounded away from zero.
    whole, scale = ceil(number * 10**9), -9
    while whole % 1000 == 0 and scale < 18:
        whole, scale = whole // 1000, scale + 3
    if exponent:
        return f"{sign}{whole}" + (f"e{scale}" if scale else "")
    return f"{sign}{whole}" + next(name for name, value in _DECIMAL.items() if value == scale)


def canonicalize(obj: Any, kind: str) -> Any:
    """A copy of a built-in object with its quantities canonical. Which fields are quantities goes by their names."""
    if isinstance(obj, list):
        return [canonicalize(item, kind) for item in obj]
    if not isinstance(obj, dict):
        return obj
    result: dict[str, Any] = {}
    for key, value in obj.items():
        if isinstance(value, dict) and (key in _MAPS or (kind == "LimitRange" and key in _LIMIT_RANGE_MAPS)):
            result[key] = {name: canonical(item) for name, item in value.items()}
        elif key in _SCALARS:
            result[key] = canonical(value)
        elif key in ("annotations", "labels", "data", "stringData", "matchLabels", "nodeSelector"):
            result[key] = value
        else:
            result[key] = canonicalize(value, kind)
    return result
