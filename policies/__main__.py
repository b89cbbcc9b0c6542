"""The entry point that Pulumi starts. `PolicyPack` serves and does not return, so nothing imports this module."""

import pulumi
from pulumi_policy import PolicyPack

from policies.pack import NAME, policies

PolicyPack(name=NAME, policies=list(policies(pulumi.get_stack(), pulumi.Config().get_object("spec"))))
