"""The typed tree that a stack file becomes. Plain data: no Pulumi, no I/O."""
