"""Where a stack's state lies, how it is encrypted, and who holds it: docs/state.md."""
