"""The rules, one a file. A new file here is a new rule; tests/policies holds it to a good and a bad case."""

import pkgutil
from importlib import import_module

from policies.rule import Rule, of_module

RULES: tuple[Rule, ...] = tuple(of_module(import_module(f"{__name__}.{each.name}")) for each in pkgutil.iter_modules(__path__))
"""All of them, in the order of their names."""
