"""The Pulumi program and the stack files, one per environment."""
