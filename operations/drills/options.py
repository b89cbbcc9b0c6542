"""Options of a drill that contradict each other or the fleet, before anything is planned."""

import sys

from core.errors import FleetError
from operations.drills.case import Options
from operations.drills.cases import CASES, EVERY
from operations.drills.faults import supported
from specs.fleet import FleetSpec


def check_options(options: Options) -> None:
    """Raises FleetError: one line for each option that is wrong."""
    wrong: list[str] = []
    if options.case not in CASES and options.case != EVERY:
        wrong.append(f"case: must be one of {', '.join([*CASES, EVERY])}, got: `{options.case}`")
    if options.rate is not None and not 0 < options.rate <= 100_000:
        wrong.append(f"--rate: must be above 0, got: `{options.rate:g}`")
    if options.requests is not None and options.requests < 1:
        wrong.append(f"--requests: must be 1 or more, got: `{options.requests}`")
    if options.tokens is not None and options.tokens < 1:
        wrong.append(f"--tokens: must be 1 or more, got: `{options.tokens}`")
    if options.repeat < 1:
        wrong.append(f"--repeat: must be 1 or more, got: `{options.repeat}`")
    if options.baseline and not options.mock_engine:
        wrong.append("--baseline: needs --mock-engine: a second model with other settings is put beside the first")
    case = CASES.get(options.case)
    if options.baseline and case and not case.published:
        published = [each.name for each in CASES.values() if each.published]
        wrong.append(f"--baseline: says nothing in the case `{options.case}`; it does in {', '.join(published)}")
    if options.meant and not options.not_local:
        wrong.append("--yes-i-mean: is for fleets that are not local, and needs --not-local")
    if options.meant and options.cluster and options.meant != options.cluster:
        wrong.append(f"--yes-i-mean: must be the cluster of --cluster `{options.cluster}`, got: `{options.meant}`")
    if options.case == EVERY and (options.doors or options.cluster):
        wrong.append("all: every case chooses its own region and doors; leave out --cluster and --doors")
    for name, path in (("--json", options.json_file), ("--report", options.report)):
        if path is not None and not path.absolute().parent.is_dir():
            wrong.append(f"{name}: no such folder: `{path.absolute().parent}`")
    if wrong:
        raise FleetError("\n".join(wrong))


def allow(options: Options, fleet: FleetSpec) -> None:
    """Only a fleet that is wholly on this machine may be broken without being asked. Raises FleetError."""
    others = [each.name for each in fleet.clusters if not each.driver.capabilities.on_this_machine]
    if not others:
        return
    what = f"stack `{options.stack}` is not on this machine alone: {', '.join(others)}"
    if not options.not_local:
        raise FleetError(f"{what}; a drill harms what it runs on", hint="if that is what you want: --not-local --cluster NAME")
    if options.cluster is None:
        raise FleetError(f"{what}; the cluster to harm must be named", hint="--cluster NAME")
    wanted = {each.fault for each in CASES.values() if options.case in (each.name, EVERY) and each.fault}
    if options.cluster in fleet.by_name and not wanted <= supported(fleet.by_name[options.cluster].driver):
        load_alone = ", ".join(f"`{each.name}`" for each in CASES.values() if each.fault is None)
        raise FleetError(
            f"{options.case} cannot be made in {options.cluster}, which is not local: its processes, packets and gateways are out of reach",
            hint=f"only {load_alone} is load alone; or drill the case on the stack `local`",
        )
    if options.meant == options.cluster:
        return
    if not sys.stdin.isatty():
        raise FleetError("a drill outside the local fleet must be confirmed", hint=f"in a terminal, or by --yes-i-mean {options.cluster}")
    print(f"{what}\nThe drill `{options.case}` will harm {options.cluster}. Its name, to go on: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip() != options.cluster:
        raise FleetError("not confirmed, nothing was touched")
