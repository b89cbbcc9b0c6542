"""Pulumi components of the fleet, one concern per module: Spec, then manifest function, then component. See README.md."""
