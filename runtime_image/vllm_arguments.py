"""What the argument parser of `vllm serve` takes, as data: so that a preview finds what would end a container at its start.

vllm_arguments.json holds a table for each vLLM that the runtimes name. `python -m runtime_image.vllm_arguments` writes anew
that of the vLLM of the toolchain, and a test compares. For another version, one for GPUs for instance, its sources do:

    pip download --no-deps vllm==VERSION && unzip -d FOLDER vllm-VERSION-*.whl '*.py'
    python -m runtime_image.vllm_arguments FOLDER

Modules that the newer version needs beyond those of the toolchain go into FOLDER too, by `pip install --target`.
"""

import difflib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

FILE = Path(__file__).with_suffix(".json")
_PARSER = Path(__file__).with_name("vllm_parser.py")

# 8192, 8k (8000), 8K (8192), 25.6k: what vLLM takes for a number of tokens or bytes.
_SIZE = re.compile(r"\d+([KMGT]|(\.\d+)?[kmgt])?")


@dataclass(frozen=True, kw_only=True)
class Gone:
    """A flag that older guides name, and that ends vLLM at its start today."""

    # What to do instead, as a hint.
    instead: str
    # The vLLM that no longer has it, where that is known.
    since: str | None = None


# Compared with the tables in November 2026; a test keeps flags out that a table has.
GONE: dict[str, Gone] = {
    "--swap-space": Gone(since="0.18", instead="leave it out: nothing is swapped any more; `kvOffloadingGiB` keeps more of the cache"),
    "--disable-log-requests": Gone(instead="leave it out: requests are logged only with `--enable-log-requests`"),
    "--guided-decoding-backend": Gone(instead="set `structuredOutputsBackend`"),
    "--num-scheduler-steps": Gone(instead="leave it out: scheduling is asynchronous by itself, see `--async-scheduling`"),
    "--use-v2-block-manager": Gone(instead="leave it out: there is one block manager"),
    "--enable-reasoning": Gone(instead="leave it out: `reasoningParser` is enough"),
    "--max-seq-len-to-capture": Gone(instead="use `--max-cudagraph-capture-size`"),
    "--rope-scaling": Gone(instead="use `--hf-overrides: {rope_parameters: {...}}`"),
    "--rope-theta": Gone(instead="use `--hf-overrides: {rope_parameters: {...}}`"),
    "--task": Gone(instead="use `--runner`, and `--convert` for a model that shall do what it was not made for"),
    "--disable-frontend-multiprocessing": Gone(instead="leave it out"),
    "--max-num-partial-prefills": Gone(instead="leave it out"),
    "--cuda-graph-sizes": Gone(instead="use `--cudagraph-capture-sizes`"),
    "--preemption-mode": Gone(instead="leave it out: what is preempted is computed again"),
    "--worker-use-ray": Gone(instead="use `--distributed-executor-backend: ray`"),
    "--scheduler-delay-factor": Gone(instead="leave it out"),
    "--lora-extra-vocab-size": Gone(instead="leave it out: adapters must not add words"),
    "--disable-mm-preprocessor-cache": Gone(instead="use `--mm-processor-cache-gb: 0`"),
    "--override-pooler-config": Gone(instead="use `--pooler-config`"),
    "--quantization-param-path": Gone(instead="leave it out: scales of the cache belong into the checkpoint"),
}


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One flag of the parser."""

    # switch (has a --no- form), flag (takes no value), text, integer, number, size, json.
    kind: str
    choices: tuple[Any, ...] = ()
    # The flag that loads a plugin, which may add to the choices.
    more: str | None = None
    # Values beside those of the kind.
    also: tuple[str, ...] = ()
    # Takes several values, one after another.
    many: bool = False
    # Keys of the JSON, each with its choices; None where any key may stand.
    fields: Mapping[str, Any] | None = None
    aliases: tuple[str, ...] = ()
    deprecated: bool = False
    default: Any = None


@dataclass(frozen=True, kw_only=True)
class Wrong:
    """Why the parser would refuse a flag. `inside`: the key of a JSON value that is meant."""

    rule: str
    hint: str | None = None
    inside: str | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The parser of one vLLM."""

    version: str
    flags: Mapping[str, Flag]
    # Method of quantization → least compute capability of a GPU, 80 for 8.0; None for any.
    quantization: Mapping[str, int | None]
    kv_connectors: tuple[str, ...]

    def wrong(self, name: str, value: Any, given: Iterable[str] = ()) -> Wrong | None:
        """Why the parser would refuse `value` for the flag `name`; None where it takes it. `given`: the flags beside it."""
        flag = self.flags.get(name)
        return self._unknown(name) if flag is None else _wrong_value(flag, value, frozenset(given))

    def _unknown(self, name: str) -> Wrong:
        if gone := GONE.get(name):
            since = f" since {gone.since}" if gone.since else ""
            return Wrong(rule=f"is gone from vLLM{since}; this is vLLM {self.version}", hint=gone.instead)
        rule = f"is no argument of vLLM {self.version}"
        for flag, each in self.flags.items():
            if name in each.aliases:
                return Wrong(rule="is another name of an argument", hint=f"write `{flag}`")
            if each.kind == "switch" and name in (f"--no-{flag[2:]}", flag.replace("--enable-", "--disable-")):
                return Wrong(rule="turns an argument off", hint=f"write `{flag}: false`")
        head = name.partition(".")[0]
        if head in self.flags and head != name:
            return Wrong(rule=rule, hint=f"write `{head}` with a mapping as its value")
        dashed = name if name.startswith("--") else f"--{name.lstrip('-')}"
        alike = difflib.get_close_matches(dashed.replace("_", "-"), self.flags, n=1, cutoff=0.6)
        return Wrong(rule=rule, hint=f"did you mean `{alike[0]}`?" if alike else "vllm serve --help=all lists them")


def _wrong_value(flag: Flag, value: Any, given: frozenset[str]) -> Wrong | None:
    if flag.kind == "switch":
        return None if isinstance(value, bool) else Wrong(rule="must be true or false")
    if flag.kind == "flag":
        return None if value is True else Wrong(rule="takes no value: must be true", hint="leave it out otherwise")
    if flag.many and isinstance(value, list):
        values = cast("list[Any]", value)
        if not values:
            return Wrong(rule="must have at least 1 entries", hint="leave it out")
        return next((found for each in values if (found := _wrong_one(flag, each, given))), None)
    return _wrong_one(flag, value, given)


def _wrong_one(flag: Flag, value: Any, given: frozenset[str]) -> Wrong | None:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value in flag.also and isinstance(value, str):
        return None
    if flag.kind == "json":
        return _wrong_json(flag, value)
    if flag.kind == "integer" and not (number and isinstance(value, int)):
        return Wrong(rule="must be a whole number")
    if flag.kind == "number" and not number:
        return Wrong(rule="must be a number")
    if flag.kind == "size" and not ((number and isinstance(value, int)) or (isinstance(value, str) and _SIZE.fullmatch(value))):
        return Wrong(rule="must be a whole number, or one with a unit such as `8k` or `2M`")
    if flag.kind == "text" and not (number or isinstance(value, str)):
        return Wrong(rule="must be text")
    if flag.choices and value not in flag.choices and not (flag.more and flag.more in given):
        return _not_among(value, flag.choices, flag.more)
    return None


def _not_among(value: Any, choices: Iterable[Any], more: str | None = None) -> Wrong:
    names = [str(each) for each in choices]
    alike = difflib.get_close_matches(value, names, n=1, cutoff=0.6) if isinstance(value, str) else []
    known = f"known: {', '.join(f'`{each}`' for each in names)}"
    plugin = f"; a plugin's own needs `{more}`" if more else ""
    return Wrong(rule="is not one of its choices", hint=(f"did you mean `{alike[0]}`?" if alike else known) + plugin)


def _wrong_json(flag: Flag, value: Any) -> Wrong | None:
    if flag.fields is None:
        return None if isinstance(value, (dict, list)) else Wrong(rule="must be a mapping or a list: vLLM reads it as JSON")
    if not isinstance(value, dict):
        return Wrong(rule="must be a mapping of fields: vLLM reads it as JSON")
    for key, each in cast("dict[str, Any]", value).items():
        if key not in flag.fields:
            alike = difflib.get_close_matches(key, flag.fields, n=1, cutoff=0.6)
            known = f"known: {', '.join(f'`{name}`' for name in flag.fields)}"
            return Wrong(rule="unknown field", hint=f"did you mean `{alike[0]}`?" if alike else known, inside=key)
        choices = flag.fields[key]
        if choices and each is not None and each not in choices:
            found = _not_among(each, choices)
            return Wrong(rule=found.rule, hint=found.hint, inside=key)
    return None


@cache
def _read() -> Mapping[str, Any]:
    return json.loads(FILE.read_text(encoding="utf-8"))


def _flag(told: Mapping[str, Any]) -> Flag:
    lists: dict[str, Any] = {key: tuple(told[key]) for key in ("choices", "also", "aliases") if key in told}
    return Flag(**{**told, **lists})


@cache
def table(version: str) -> Table:
    """The parser of this vLLM. Raises KeyError for a version without a table."""
    raw = _read()[version]
    flags = {name: _flag(told) for name, told in raw["flags"].items()}
    return Table(version=version, flags=flags, quantization=raw["quantization"], kv_connectors=tuple(raw["kvConnectors"]))


def versions() -> tuple[str, ...]:
    """Those that have a table."""
    return tuple(_read())


def described(python: Path, folder: Path | None = None) -> dict[str, Any]:
    """What the parser of the vLLM in the environment of `python` takes, or of the sources in `folder` with its libraries.

    Takes seconds and about 1 GB. Raises CalledProcessError, with what vLLM said in `stderr`.
    """
    # Not this process's settings: some change defaults. No GPU is looked for.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "CUDA_VISIBLE_DEVICES": ""}
    if folder is not None:
        environment["PYTHONPATH"] = str(folder.resolve())
    ran = subprocess.run([str(python), str(_PARSER)], env=environment, capture_output=True, text=True, check=True)
    return json.loads(ran.stdout.splitlines()[-1])


def text(tables: Mapping[str, Any]) -> str:
    """The file as a person can compare it: one flag a line."""
    parts: list[str] = []
    for version, told in sorted(tables.items()):
        flags = ",\n".join(f"      {json.dumps(name)}: {json.dumps(each)}" for name, each in told["flags"].items())
        rest = f'    "quantization": {json.dumps(told["quantization"])},\n    "kvConnectors": {json.dumps(told["kvConnectors"])}'
        parts.append(f'  "{version}": {{\n    "flags": {{\n{flags}\n    }},\n{rest}\n  }}')
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    # Here, because the table is read where no toolchain is.
    from toolchain import packages  # noqa: PLC0415

    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    told = described(packages.vllm_folder() / "bin" / "python", folder)
    tables = dict(_read()) if FILE.exists() else {}
    tables[told.pop("vllm")] = told
    FILE.write_text(text(tables), encoding="utf-8")


if __name__ == "__main__":
    main()
