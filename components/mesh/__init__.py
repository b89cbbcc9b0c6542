"""Gateways, regions, routes and Envoy configuration."""
