"""Clusters: one module per driver."""
