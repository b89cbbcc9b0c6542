"""The comment of a pull request: what previews found, as Markdown. Pure; posting it is github.py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from operations.preview.result import Difference, Preview, Violation, difference

# By which a later run finds the comment. It is the first line, and not shown.
MARK = "<!-- inference-fleet: preview -->"
# GitHub refuses a longer one.
LONGEST = 65_536
_CUT = "\n\nCut here: a comment can be no longer. The run has the rest.\n"
# Changed resources of each environment that are shown; the next smaller number where the comment would be too long.
_MOST_RESOURCES = (1000, 100, 20, 0)
# Fields of one resource that are shown, and characters of one value.
_MOST_FIELDS, _MOST_CHARACTERS = 12, 120
_ABSENT = "nothing"


@dataclass(frozen=True, kw_only=True)
class Environment:
    """What is known of one environment."""

    name: str
    head: Preview | None
    """None where its stack file is gone."""
    base: Preview | None = None
    """The same before the change; None for a new environment, or where nobody looked."""
    plan: str = ""
    """What `fleet plan --markdown` said."""

    @property
    def change(self) -> Difference | None:
        if not self.base or not self.head or self.base.errors or self.head.errors:
            return None
        return difference(self.base, self.head)


def text(environments: Sequence[Environment] | None, run_url: str = "") -> str:
    """The whole comment, at most LONGEST characters long. None: the run failed before anything was previewed."""
    end = f"\n\n[The run]({run_url})\n" if run_url else "\n"
    if environments is None:
        return f"{MARK}\n## Fleet preview: failed\n\nThere is no preview: the run failed before it.{end}"
    if not environments:
        return f"{MARK}\n## Fleet preview\n\nThis change touches no environment.{end}"
    room = LONGEST - len(end)
    tried = ["\n".join(_lines(environments, most)) for most in _MOST_RESOURCES]
    return next((each for each in tried if len(each) <= room), _cut(tried[-1], room)) + end


def _cut(whole: str, room: int) -> str:
    """The beginning of it, with what is open closed: else all that follows would be folded away with it."""
    kept = whole[: room - len(_CUT) - 100].rpartition("\n")[0]
    fence = "\n```" if sum(line.startswith("```") for line in kept.splitlines()) % 2 else ""
    return kept + fence + "\n\n</details>" * (kept.count("<details") - kept.count("</details>")) + _CUT


def _lines(environments: Sequence[Environment], most: int) -> Iterator[str]:
    refused = [each.name for each in environments if each.head and each.head.refused]
    yield f"{MARK}\n## Fleet preview: {f'refused for {_and(refused)}' if refused else 'passes'}\n"
    yield "| environment | policies | resources |\n|---|---|---|"
    for each in environments:
        yield f"| {_cell(each.name)} | {_verdict(each.head)} | {_counts(each)} |"
    for each in environments:
        yield f"\n### {_plain(each.name)}\n"
        yield from _environment(each, each.head, most) if each.head else _gone(each)


def _gone(each: Environment) -> Iterator[str]:
    declared = f"; it declared {len(each.base.resources)} resources" if each.base and not each.base.errors else ""
    yield f"Its stack file is gone{declared}. What was made of it stays until `pulumi destroy`, which needs the file.\n"


def _environment(each: Environment, head: Preview, most: int) -> Iterator[str]:
    if head.errors:
        yield "There is no preview:\n"
        for error in head.errors:
            yield f"```text\n{error.replace('```', '` ` `')}\n```"
        return
    refusing = [found for found in head.violations if found.mandatory]
    advisory = [found for found in head.violations if not found.mandatory]
    if refusing:
        yield "\n".join(_violations("refused by", refusing))
    if advisory:
        yield _folded(f"{len(advisory)} advisory", "\n".join(_violations("advisory", advisory)))
    if each.plan:
        yield _folded("Plan", _unnamed(each.plan.strip()))
    change = each.change
    if change is None:
        known = "It is not known what was declared before." if each.base is None else "There was no preview before the change."
        yield f"{known} Declared now: {len(head.resources)} resources.\n"
    elif change.empty:
        yield "No resource is declared otherwise than before.\n"
    else:
        yield _folded(f"Resources: {_numbers(change)}", "\n".join(_changes(change, most)), opened=True)


def _violations(head: str, found: Sequence[Violation]) -> Iterator[str]:
    yield f"| {head} | resource | what | fix |\n|---|---|---|---|"
    for each in found:
        _, *rest = each.message.split("\n")
        mend = next((line.removeprefix("fix: ") for line in rest if line.startswith("fix: ")), "")
        what = " ".join(line for line in rest if not line.startswith(("why: ", "fix: ")))
        yield f"| `{each.policy}` | {_cell(each.resource or 'the stack')} | {_cell(what or each.message)} | {_cell(mend)} |"
    yield ""


def _changes(change: Difference, most: int) -> Iterator[str]:
    whole = [*(f"- **removed** {_code(name)}" for name in change.removed), *(f"- **added** {_code(name)}" for name in change.added)]
    whole += ["\n".join(_changed(name, fields)) for name, fields in change.changed.items()]
    yield from whole[:most]
    if len(whole) > most:
        yield f"- and {len(whole) - most} more: the run has them, or `fleet preview --base`"


def _changed(name: str, fields: Mapping[str, tuple[Any, Any]]) -> Iterator[str]:
    yield f"- **changed** {_code(name)}"
    for path, (before, after) in list(fields.items())[:_MOST_FIELDS]:
        yield f"  - {_code(path)}: {_value(before)} → {_value(after)}"
    if len(fields) > _MOST_FIELDS:
        yield f"  - and {len(fields) - _MOST_FIELDS} more fields"


def _verdict(head: Preview | None) -> str:
    if head is None:
        return "gone"
    if head.errors:
        return "❌ no preview"
    refusing = sum(each.mandatory for each in head.violations)
    advisory = len(head.violations) - refusing
    return (f"❌ {refusing} refuse" if refusing else "✅ pass") + (f", {advisory} advisory" if advisory else "")


def _counts(each: Environment) -> str:
    change = each.change
    if change is not None:
        return _numbers(change)
    return f"{len(each.head.resources)} declared" if each.head and not each.head.errors else ""


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
    """Text that names nobody, opens no tag, and links to nothing under another name."""
    return _unnamed(value.replace("&", "&amp;").replace("<", "&lt;").replace("](", "]\u200b("))


def _unnamed(value: str) -> str:
    # Nobody is named behind a letter or digit: a digest stays as it is, for people to copy.
    return re.sub(r"(?<![0-9A-Za-z_])@", "@\u200b", value)


def _cell(value: str) -> str:
    return _plain(" ".join(value.split())).replace("|", "\\|")


def _and(names: Sequence[str]) -> str:
    return ", ".join(map(_plain, names))
