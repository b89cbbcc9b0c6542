"""Runtimes, models and what their pods need."""
