"""Karmada, KServe and Istio, and how each gets into a cluster."""
