"""Where signatures are required, clusters verify them.

Why: a digest says which image runs, a signature says who made it; only an admission policy in the cluster refuses one without.

Fix: declare an ImageValidatingPolicy or ClusterPolicy of Kyverno, or a ClusterImagePolicy of Sigstore's policy-controller, and
let it go to every member; or take `signed` out of the environment in policies/environments.yaml.
"""

from collections.abc import Iterator

from policies.declared import Placed, Stack, items, mapping, mappings, text
from policies.karmada import without
from policies.rule import Finding


def _verifies(each: Placed) -> bool:
    group, spec = text(each.body.get("apiVersion")), mapping(each.body.get("spec"))
    if each.kind in ("ImageValidatingPolicy", "ClusterPolicy"):
        verified = [each for rule in mappings(spec.get("rules")) for each in mappings(rule.get("verifyImages"))]
        actions = [spec.get("validationFailureAction"), *(each.get("failureAction") for each in verified)]
        enforced = "Deny" in items(spec.get("validationActions")) or any(text(each).lower() == "enforce" for each in actions)
        return "kyverno.io/" in group and enforced and bool(verified or spec.get("attestors"))
    return group.startswith("policy.sigstore.dev/") and spec.get("mode", "enforce") == "enforce" and bool(spec.get("authorities"))


def check(stack: Stack) -> Iterator[Finding]:
    if not stack.settings.signed:
        return
    unverified = without(stack, _verifies, "ImageValidatingPolicy", "ClusterPolicy", "ClusterImagePolicy")
    if unverified:
        yield Finding(says=f"the environment requires signed images, and no policy refuses unsigned ones in {', '.join(unverified)}")
