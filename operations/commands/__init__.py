"""The commands of `fleet`, one module each: its arguments, and `run`.

`add(commands)` declares the command. `run` imports what the command needs when it is called: the modules behind `fleet up` take most
of a second to import, and `fleet --help` needs none of them.
"""

from operations.commands import (
    bench,
    check,
    down,
    drain,
    drill,
    image,
    logs,
    model,
    outputs,
    plan,
    preview,
    preview_change,
    preview_comment,
    status,
    up,
    versions,
)
from operations.commands.options import Command

# In the order of `fleet --help`.
COMMANDS: tuple[Command, ...] = (
    up,
    down,
    check,
    status,
    outputs,
    logs,
    bench,
    drill,
    drain,
    model,
    image,
    plan,
    preview,
    preview_change,
    preview_comment,
    versions,
)
