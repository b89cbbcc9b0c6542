"""Talking to Kubernetes API servers: the one client that the rest of the repository uses."""
