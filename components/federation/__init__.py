"""Karmada objects on the hub: membership, policies, placement, overrides."""
