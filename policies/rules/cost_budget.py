"""The GPU pools at their largest cost no more than the environment's budget.

Why: a pool's upper bound is what an autoscaler may spend, and it can do so overnight.

Fix: lower `nodes` or `maxNodes`, or raise `monthlyBudget` of the environment in policies/environments.yaml. Prices are those of
`fleet plan`: the stack file's `planning.prices`, then the catalogue's.
"""

from collections.abc import Iterator

from policies.cost import monthly
from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    budget = stack.settings.monthly_budget
    if stack.spec is None or budget is None:
        return
    cost, unpriced = monthly(stack.spec)
    if cost > budget:
        yield Finding(says=f"the pools cost {cost:,.0f} a month at their largest, and the budget is {budget:,.0f}")
    for each in unpriced:
        yield Finding(says=f"pool {each} has no price: the budget cannot be checked")
