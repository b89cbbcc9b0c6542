"""`fleet-driver`: what the Pulumi program calls to change a local cluster, or to join any cluster to the hub.

JSON on stdin, JSON as the only stdout, progress and errors on stderr. Every call can be repeated. It only dispatches: local
clusters are local/desired_state.py, members of every driver federation/membership.py.
"""

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from core.errors import FleetError
from kube.client import KubeError
from kube.kubeconfig import KubeconfigError
from local import desired_state
from local.desired_state import CONTROL_PLANE, MODULES, SWITCHES
from local.host_cluster import PortError, UnitError
from toolchain.tools import ToolError

Object = dict[str, Any]
Handler = Callable[[Object], Object]

_STOPPING = (signal.SIGINT, signal.SIGTERM)

_NOUNS = (*MODULES, CONTROL_PLANE)

USAGE = f"""usage: fleet-driver NOUN apply|delete < SPEC.json     NOUN: {", ".join(_NOUNS)}
       fleet-driver member join|unjoin|check < SPEC.json
       fleet-driver control-plane verify < SPEC.json     one that somebody else installed; changes nothing
       fleet-driver cluster {"|".join(SWITCHES)} NAME
       fleet-driver gpu-pools unavailable|available CLUSTER POOL CAPACITY_TYPE"""


def _member(verb: str) -> Handler:
    # Only here: the other calls have no use for it.
    from federation import membership  # noqa: PLC0415

    return {"join": membership.join, "unjoin": membership.unjoin, "check": membership.check}[verb]


def _verify(spec: Object) -> Object:
    from federation import verification  # noqa: PLC0415

    return verification.verify(spec)


def _run(arguments: list[str]) -> None:
    match arguments:
        case ["cluster", verb, name] if verb in SWITCHES:
            desired_state.switch(verb, name)
        case ["member", "join" | "unjoin" | "check" as verb]:
            print(json.dumps(_member(verb)(json.load(sys.stdin))))
        case ["gpu-pools", "available" | "unavailable" as verb, name, pool, capacity]:
            print(json.dumps(desired_state.set_capacity(name, pool, capacity, available=verb == "available")))
        case ["control-plane", "verify"]:
            print(json.dumps(_verify(json.load(sys.stdin))))
        case [noun, "apply" | "delete" as verb] if noun in _NOUNS:
            change = desired_state.apply if verb == "apply" else desired_state.delete
            print(json.dumps(change(noun, json.load(sys.stdin))))
        case _:
            sys.exit(USAGE)


def _stop(number: int, _: object) -> NoReturn:
    """Ends the call with one line. Raising, not dying, takes commands that run for us along."""
    # The engine may send its own after the terminal's.
    for each in _STOPPING:
        signal.signal(each, signal.SIG_IGN)
    # Not print: the signal may come in the middle of one.
    os.write(2, b"interrupted; re-run to resume\n")
    sys.exit(128 + number)


def main() -> None:
    for each in _STOPPING:
        # A shell makes its background jobs ignore Ctrl-C, and that holds for what they start.
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, _stop)
    try:
        _run(sys.argv[1:])
    except (KubeError, KubeconfigError, UnitError, PortError, ToolError, FleetError, TimeoutError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        if hint := getattr(error, "hint", ""):
            print(f"hint: {hint}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
