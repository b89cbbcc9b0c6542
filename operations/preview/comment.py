"""The comment of a pull request: what previews found, as Markdown. Pure; posting it is github.py."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operations.preview.result import Difference, Preview, Violation, difference

# By which a later run finds the comment. It is the first line, and not shown.
MARK = "<!-- inference-fleet: preview -->"
# GitHub refuses a longer one.
LONGEST = 65_536
_CUT = "\n\nCut here: a comment can be no longer. The run has the rest.\n"
# Fields of one resource that are shown, and characters of one value.
_MOST_FIELDS, _MOST_CHARACTERS = 12, 120
_ABSENT = "nothing"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What is known of one environment."""

    head: Preview
    base: Preview | None = None
    """The same before the change; None for a new environment, or where nobody looked."""
    plan: str = ""
    """What `fleet plan --markdown` said."""

    @property
    def change(self) -> Difference | None:
        return difference(self.base, self.head) if self.base and not self.base.errors and not self.head.errors else None


def text(environments: Sequence[Environment], run_url: str = "") -> str:
    """The whole comment, at most LONGEST characters long."""
    if not environments:
        return f"{MARK}\n## Fleet preview\n\nThis change touches no environment.\n"
    whole = "\n".join(_lines(environments))
    end = f"\n\n[The run]({run_url})\n" if run_url else "\n"
    room = LONGEST - len(end)
    return (whole if len(whole) <= room else whole[: room - len(_CUT)] + _CUT) + end


def _lines(environments: Sequence[Environment]) -> Iterator[str]:
    refused = [each.head.stack for each in environments if each.head.refused]
    yield f"{MARK}\n## Fleet preview: {f'refused for {_and(refused)}' if refused else 'passes'}\n"
    yield "| environment | policies | resources |\n|---|---|---|"
    for each in environments:
        yield f"| {_cell(each.head.stack)} | {_verdict(each.head)} | {_counts(each)} |"
    for each in environments:
        yield f"\n### {_plain(each.head.stack)}\n"
        yield from _environment(each)


def _environment(each: Environment) -> Iterator[str]:
    if each.head.errors:
        yield "There is no preview:\n"
        for error in each.head.errors:
            yield f"```text\n{error.replace('```', '` ` `')}\n```"
        return
    refusing = [found for found in each.head.violations if found.mandatory]
    told = [found for found in each.head.violations if not found.mandatory]
    if refusing:
        yield "\n".join(_violations("refused by", refusing))
    if told:
        yield _folded(f"{len(told)} told, refusing nothing", "\n".join(_violations("told by", told)))
    if each.plan:
        yield _folded("Plan", each.plan.strip())
    change = each.change
    if change is None:
        known = "It is not known what was declared before." if each.base is None else "There was no preview before the change."
        yield f"{known} Declared now: {len(each.head.resources)} resources.\n"
    elif change.empty:
        yield "No resource is declared otherwise than before.\n"
    else:
        yield _folded(f"Resources: {_numbers(change)}", "\n".join(_changes(change)), opened=True)


def _violations(head: str, found: Sequence[Violation]) -> Iterator[str]:
    yield f"| {head} | resource | what | mend |\n|---|---|---|---|"
    for each in found:
        _, *rest = each.message.split("\n")
        mend = next((line.removeprefix("mend: ") for line in rest if line.startswith("mend: ")), "")
        what = " ".join(line for line in rest if not line.startswith(("why: ", "mend: ")))
        yield f"| `{each.policy}` | {_cell(each.resource or 'the stack')} | {_cell(what or each.message)} | {_cell(mend)} |"
    yield ""


def _changes(change: Difference) -> Iterator[str]:
    for sign, names in (("+", change.added), ("-", change.removed)):
        for name in names:
            yield f"- **{'added' if sign == '+' else 'removed'}** {_code(name)}"
    for name, fields in change.changed.items():
        yield f"- **changed** {_code(name)}"
        for path, (before, after) in list(fields.items())[:_MOST_FIELDS]:
            yield f"  - {_code(path)}: {_value(before)} → {_value(after)}"
        if len(fields) > _MOST_FIELDS:
            yield f"  - and {len(fields) - _MOST_FIELDS} more fields"


def _verdict(head: Preview) -> str:
    if head.errors:
        return "❌ no preview"
    refusing = sum(each.mandatory for each in head.violations)
    told = len(head.violations) - refusing
    return (f"❌ {refusing} refuse" if refusing else "✅ pass") + (f", {told} told" if told else "")


def _counts(each: Environment) -> str:
    change = each.change
    return "" if each.head.errors else f"{len(each.head.resources)} declared" if change is None else _numbers(change)


def _numbers(change: Difference) -> str:
    parts = {"added": len(change.added), "changed": len(change.changed), "removed": len(change.removed)}
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count) or "unchanged"


def _folded(title: str, body: str, *, opened: bool = False) -> str:
    return f"<details{' open' if opened else ''}><summary>{title}</summary>\n\n{body}\n\n</details>\n"


def _value(value: Any) -> str:
    return _ABSENT if value is None else _code(value if isinstance(value, str) else _json(value))


def _json(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_json(each)}" for key, each in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_json, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _code(value: str) -> str:
    """A code span. What is in it is nobody's name, link or markup."""
    short = " ".join(value.split())
    short = short if len(short) <= _MOST_CHARACTERS else short[: _MOST_CHARACTERS - 1] + "…"
    return f"`{short.replace('`', chr(39))}`" if short else "an empty text"


def _plain(value: str) -> str:
    """Text that names nobody and opens no tag."""
    return value.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@\u200b")


def _cell(value: str) -> str:
    return _plain(" ".join(value.split())).replace("|", "\\|")


def _and(names: Sequence[str]) -> str:
    return ", ".join(map(_plain, names))
