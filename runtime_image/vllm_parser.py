"""Prints what the argument parser of `vllm serve` takes, as JSON. Run by the Python of an environment that has vLLM.

Nothing of this repository is imported, and nothing but vllm_arguments.py reads what it prints.
"""

import argparse
import dataclasses
import importlib
import inspect
import json
import os
import re
import sys
import typing
from collections.abc import Callable
from typing import Any

# What vLLM calls its converters, in our words. Each takes one text.
_KINDS = {
    "str": "text",
    "int": "integer",
    "float": "number",
    # 8192, 8k (8000) or 8K (8192).
    "human_readable_int": "size",
    "human_readable_int_or_auto": "size",
    "loads": "json",
    "union_dict_and_str": "json",
    "parse_dataclass": "json",
}


def serve_parser() -> argparse.ArgumentParser:
    """The parser of `vllm serve`, made as vLLM's own command line makes it."""
    serve = importlib.import_module("vllm.entrypoints.cli.serve")
    utilities = importlib.import_module("vllm.utils.argparse_utils")
    return serve.ServeSubcommand().subparser_init(utilities.FlexibleArgumentParser().add_subparsers())


def _converter(kind: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The innermost converter: vLLM wraps one that may be left empty, and one whose errors it words anew."""
    while kind is not None and kind.__name__ in ("_optional_type", "_parse_type"):
        kind = inspect.getclosurevars(kind).nonlocals["return_type"]
    return kind


def _choices(hint: Any) -> list[Any] | None:
    """The values of the Literals in a type, None where another value may stand too."""
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    parts = [each for each in typing.get_args(hint) if each is not type(None)]
    found = [_choices(each) for each in parts]
    if not parts or typing.get_origin(hint) in (list, tuple, set, dict) or any(each is None for each in found):
        return None
    return [value for each in found for value in each or ()]


def _fields(dataclass: Any) -> dict[str, list[Any] | None]:
    """Keys of a configuration that is written as JSON, each with its choices."""
    try:
        hints = typing.get_type_hints(dataclass)
    except NameError:
        hints = {}
    return {each.name: _choices(hints.get(each.name)) for each in dataclasses.fields(dataclass) if each.init}


def _plain(default: Any) -> bool:
    return default is None or isinstance(default, (bool, int, float, str))


def describe(action: argparse.Action, deprecated: set[argparse.Action]) -> dict[str, Any]:
    """One flag. Keys that say nothing are left out."""
    names = [each for each in action.option_strings if each.startswith("--")]
    told: dict[str, Any] = {}
    if isinstance(action, argparse.BooleanOptionalAction):
        # Its other names turn it off: --no-enable-x, and --disable-x from vLLM 0.33 on.
        told["kind"], names = "switch", names[:1]
    elif action.nargs == 0:
        told["kind"] = "flag"
    else:
        converter: Any = _converter(action.type if callable(action.type) else None)
        told["kind"] = _KINDS.get(converter.__name__ if converter else "str", "text")
        if converter is not None and converter.__name__ == "human_readable_int_or_auto":
            told["also"] = ["auto", "-1"]
        if converter is not None and converter.__name__ == "parse_dataclass":
            told["fields"] = _fields(converter.__defaults__[0])
        if action.nargs in ("+", "*"):
            told["many"] = True
    # Of parsers that plugins may add to, vLLM names the built-in ones only in the usage.
    listed = re.match(r"\{([^}]+)\} or name registered in (--[\w-]+)", str(action.metavar))
    if listed:
        told |= {"choices": listed[1].split(","), "more": listed[2]}
    if action.choices is not None:
        told["choices"] = [each for each in action.choices if each is not None]
    if names[1:]:
        told["aliases"] = names[1:]
    if action in deprecated or getattr(action, "deprecated", False) or "is deprecated" in (action.help or ""):
        told["deprecated"] = True
    if _plain(action.default) and action.default not in (None, argparse.SUPPRESS):
        told["default"] = action.default
    return told


def quantization() -> dict[str, int | None]:
    """Every method of quantization → the least compute capability of a GPU for it (80 for 8.0), None where it is not said."""
    methods = importlib.import_module("vllm.model_executor.layers.quantization")
    found: dict[str, int | None] = {}
    for name in methods.QUANTIZATION_METHODS:
        try:
            least: int | None = methods.get_quantization_config(name).get_min_capability()
        except (ImportError, NotImplementedError):
            least = None
        # -1 or 0 stand for any.
        found[name] = least if least and least > 0 else None
    return found


def reasoning_parsers() -> list[str]:
    manager = importlib.import_module("vllm.reasoning").ReasoningParserManager
    return sorted(manager.list_registered())


def main() -> None:
    platforms: Any = importlib.import_module("vllm.platforms")
    # Some sources are those of a wheel for GPUs, which finds none here. The flags are the same on every platform.
    platforms._current_platform = importlib.import_module("vllm.platforms.cpu").CpuPlatform()  # noqa: SLF001
    parser = serve_parser()
    deprecated: set[argparse.Action] = getattr(parser, "_deprecated", set())
    flags = {
        each.option_strings[0]: describe(each, deprecated)
        for each in parser._actions  # noqa: SLF001 - argparse tells its actions in no other way
        if each.option_strings and "--help" not in each.option_strings
    }
    if "choices" not in flags["--kv-cache-dtype"]:
        # From vLLM 0.33 on checked behind the parser, against this list.
        flags["--kv-cache-dtype"]["choices"] = list(importlib.import_module("vllm.config.cache").KV_CACHE_DTYPES)
    flags["--reasoning-parser"] |= {"choices": reasoning_parsers(), "more": "--reasoning-parser-plugin"}
    version = importlib.import_module("vllm.version").__version__.partition("+")[0]
    connectors = importlib.import_module("vllm.distributed.kv_transfer.kv_connector.factory").KVConnectorFactory
    told = {
        "vllm": version,
        "flags": dict(sorted(flags.items())),
        "quantization": quantization(),
        "kvConnectors": sorted(connectors._registry),  # noqa: SLF001 - told in no other way
    }
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    # Its log goes to standard output otherwise.
    os.environ["VLLM_LOGGING_LEVEL"] = "CRITICAL"
    main()
