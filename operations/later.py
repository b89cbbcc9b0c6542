"""Commands whose modules are imported when they are called: `fleet status` should not wait for what it does not use."""

import argparse
import importlib
from collections.abc import Callable


def later(module: str, function: str) -> Callable[[argparse.Namespace], None]:
    def run(arguments: argparse.Namespace) -> None:
        getattr(importlib.import_module(module), function)(arguments)

    return run
