"""What makes one machine a fleet: clusters of host processes, control planes and gateways beside them."""
