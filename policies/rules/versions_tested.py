"""Every cluster runs versions that were tested together.

Why: Karmada, KServe, Istio and vLLM break each other in fields and flags, and it shows in a failover. `fleet versions` shows
where a stack stands, and the next step that was tested.

Fix: go to versions of a row of policies/compatibility.toml, or run the tests with yours and add a row; name the versions of
clusters that stand already under `driver.versions`, and leave the tag beside the digest of an image.
"""

from collections.abc import Iterator

from policies import compatibility
from policies.compatibility import COMPONENTS
from policies.declared import Stack
from policies.rule import Finding


def check(stack: Stack) -> Iterator[Finding]:
    for site in compatibility.sites(stack.spec) if stack.spec else ():
        if site.unknown:
            names = ", ".join(COMPONENTS[each] for each in site.unknown)
            yield Finding(says=f"cluster `{site.cluster}`: the stack file does not tell the version of {names}", about=site.cluster)
        elif not compatibility.matrix():
            yield Finding(says=f"cluster `{site.cluster}`: policies/compatibility.toml has errors, so that nothing counts as tested", about=site.cluster)
        elif compatibility.tested(site.versions) is None:
            row = compatibility.nearest(site.versions)
            told = ", ".join(f"{COMPONENTS[name]} {version} (tested: {row.versions[name]})" for name, version in row.differs(site.versions).items())
            yield Finding(says=f"cluster `{site.cluster}`: no row of the matrix has {told}", about=site.cluster)
