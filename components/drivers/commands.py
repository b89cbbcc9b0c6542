"""Calls of the console script `fleet-driver`, as Pulumi resources.

Everything that is done to a member directly goes through it; what the members hold alike goes through the hub. The script
is idempotent, skips a cluster that is known and away with a line on stderr, and applies what was skipped on its return.
It is not part of this package: see operations/driver.py.
"""

import json
import shutil
from collections.abc import Mapping
from typing import Any, cast

import pulumi
from pulumi_command import local

DRIVER = "fleet-driver"


def require_driver() -> None:
    """Raises RunError, with the remedy, where `fleet-driver` is not on PATH."""
    if shutil.which(DRIVER) is None:
        raise pulumi.RunError(f'`{DRIVER}` is not on PATH: clusters cannot be reached\n  hint: run `eval "$(make -s env)"` in the clone, then again')


def driver_command(
    name: str,
    noun: str,
    payload: Mapping[str, Any],
    opts: pulumi.ResourceOptions,
    *,
    apply: str = "apply",
    delete: str | None = "delete",
) -> local.Command:
    """Runs `fleet-driver <noun> <apply>` on creation and on every change of `payload`, `<delete>` on deletion; None: nothing.

    `payload` goes to stdin as JSON; its leaves may be Outputs. Deletion gets the payload of the last update.
    """
    stdin = _stdin(payload)
    if not isinstance(stdin, str):
        # It may hold a kubeconfig, and the official plugin keeps what a command prints in clear text whatever it read.
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(additional_secret_outputs=["stdout", "stderr"]))
    return local.Command(
        name,
        create=f"{DRIVER} {noun} {apply}",
        delete=f"{DRIVER} {noun} {delete}" if delete else None,
        stdin=stdin,
        # Only stderr is for people: it names a skipped cluster. Stdout may hold a kubeconfig.
        logging=local.Logging.STDERR,
        # The last stdout would reach the next run's environment, where other processes can read a kubeconfig.
        add_previous_output_in_env=False,
        opts=opts,
    )


def _stdin(payload: Mapping[str, Any]) -> pulumi.Input[str]:
    try:
        # Known text costs the engine no promise; most payloads are known.
        return json.dumps(payload)
    except TypeError:
        return pulumi.Output.json_dumps(payload)


def inside(parent: pulumi.Resource, owner: pulumi.Resource | None, *depends_on: pulumi.Resource) -> pulumi.ResourceOptions:
    """Options of a child of `parent` that changes something inside a cluster.

    `owner` is what makes and removes the cluster, None where the cluster stays. If it goes in the same update, the child is
    not deleted on its own: the cluster takes it along, and a dead cluster could not be asked.
    """
    waits = [*([owner] if owner else []), *depends_on]
    return pulumi.ResourceOptions(parent=parent, depends_on=waits, deleted_with=owner)


_REQUIRED: Any = object()


def result(command: local.Command, *fields: str, default: Any = _REQUIRED) -> pulumi.Output[Any]:
    """A field of the command's JSON answer, e.g. `result(command, "frontDoor", "url")`.

    A command that was skipped because its cluster is away answers what it last knew. Where it never knew, this is
    `default`, or a RunError without one.
    """

    def pick(stdout: str) -> Any:
        value: Any = json.loads(stdout)
        for field in fields:
            if field not in value:
                if default is _REQUIRED:
                    raise pulumi.RunError(f"the answer of {DRIVER} has no `{'.'.join(fields)}`: was the cluster away when it was first set up?")
                return default
            value = cast(dict[str, Any], value)[field]
        return value

    return command.stdout.apply(pick)
