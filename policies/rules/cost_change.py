"""One change adds no more to the monthly cost than the environment allows.

Why: a slip in a number of nodes should stop before it is paid; a large step deserves its own look. Checked where the cost before
the change is known: `fleet preview` passes it, see docs/policies.md.

Fix: take smaller steps, or raise `monthlyChange` of the environment in policies/environments.yaml for this one.
"""

from collections.abc import Iterator

from policies.cost import monthly
from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    limit, before = stack.settings.monthly_change, stack.deployed_cost
    if stack.spec is None or limit is None or before is None:
        return
    added = monthly(stack.spec)[0] - before
    if added > limit:
        yield Finding(says=f"the change adds {added:,.0f} a month to {before:,.0f}, and one change may add {limit:,.0f}")
