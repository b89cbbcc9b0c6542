"""What is done to the hub and a member when a cluster joins or leaves, for every driver."""
