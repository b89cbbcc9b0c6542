"""The vLLM of the image takes its arguments, and they use the GPUs that the pod asks for.

Why: vLLM ends at its start for an argument that it does not know, when the weights are there already; with fewer GPUs than the
pod has, the others idle. Models of the stack file are checked before; this is about everything beside and over them, such as
override policies.

Fix: correct the flag as the message says; `vllm serve --help=all` of the version lists them.
"""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from policies.declared import Object, Stack, at, items, text
from policies.pods import devices, gpus, is_vllm, name_of, pods
from policies.rule import Finding
from runtime_image.vllm_arguments import Flag, Table
from specs.serving_arguments import parser_table
from toolchain.pins import PINS

# Short names; the parser has more of them, about which nothing is said here.
_SHORT = {"-tp": "--tensor-parallel-size", "-pp": "--pipeline-parallel-size", "-dp": "--data-parallel-size"}


def check(stack: Stack) -> Iterator[Finding]:
    for pod in pods(stack):
        for container in pod.containers:
            if is_vllm(container):
                where = f"container `{name_of(container)}`"
                for wrong in _wrong(container):
                    yield Finding(says=f"{where}: {wrong}", on=pod.owner)


def _wrong(container: Object) -> Iterator[str]:
    limit = gpus(container)
    driven = devices(container, "limits") or at(container, "resources", "claims")
    table = parser_table(text(container.get("image")).partition("@")[0], PINS.vllm_gpu if driven else PINS.vllm)
    given = dict(_given(items(container.get("command")) + items(container.get("args"))))
    for name, written in given.items():
        flag = table.flags.get(name)
        if flag is None:
            if name.startswith("--") and not _is_other_name(table, name):
                wrong = table.wrong(name, True)
                yield f"argument `{name}` {wrong.rule if wrong else 'is unknown'}" + (f"; {wrong.hint}" if wrong and wrong.hint else "")
        elif wrong := table.wrong(name, _typed(flag, written), given):
            yield f"argument `{name}` {wrong.rule}, got: `{' '.join(written)}`" + (f"; {wrong.hint}" if wrong.hint else "")
    sizes = [_number(given.get(name)) for name in ("--tensor-parallel-size", "--pipeline-parallel-size")]
    if limit is not None and None not in sizes and "--data-parallel-size" not in given:
        used = (sizes[0] or 1) * (sizes[1] or 1)
        if used != limit:
            yield f"tensor times pipeline parallel size must be the {limit} GPUs of the pod, got: `{used}`"


def _given(words: list[Any]) -> Iterator[tuple[str, list[str]]]:
    """Flags with their values as text; a shell's line in one word is taken apart."""
    flat = [part for word in words for part in (re.split(r"\s+", word) if isinstance(word, str) and " --" in word else [word])]
    name, values = "", list[str]()
    for word in map(str, flat):
        if re.match(r"--?[A-Za-z]", word):
            if name:
                yield name, values
            name, sign, value = word.partition("=")
            name, values = _long(name), [value] if sign else []
        elif name:
            values.append(word)
    if name:
        yield name, values


def _long(name: str) -> str:
    """The flag as the parser knows it, which takes `_` for `-`; what is short and not known to us as it is."""
    head, dot, field = name.partition(".")
    return _SHORT.get(name) or f"{head.replace('_', '-')}{dot}{field}"


def _is_other_name(table: Table, name: str) -> bool:
    head = name.partition(".")[0]
    bare = f"--{name.removeprefix('--no-')}"
    turned_off = name.startswith("--no-") and bare in table.flags and table.flags[bare].kind == "switch"
    return turned_off or (head != name and head in table.flags) or any(name in each.aliases for each in table.flags.values())


def _typed(flag: Flag, written: list[str]) -> Any:
    """What the parser would make of the text; the text itself where it would fail."""
    if flag.kind in ("switch", "flag"):
        return written or True
    if flag.many:
        return written
    value = " ".join(written)
    if flag.kind in ("integer", "number", "size", "json"):
        with suppress(ValueError):
            return json.loads(value)
    return value


def _number(written: list[str] | None) -> int | None:
    """1 where the flag is not given, None where it holds no number."""
    if written is None:
        return 1
    return int(written[0]) if written and written[0].isdigit() else None
