"""A language host and a `command` plugin for Pulumi where the official ones cannot be downloaded. README.md says what they do not do."""

COMMAND_VERSION = "1.2.1"
"""Of the official plugin whose place ours takes, and whose state it reads and writes."""
LANGUAGE_HOST_VERSION = "3.260.0"
"""Of the engine that ours is written for."""
