"""What a stack file says about a cluster's driver: one module per driver."""
