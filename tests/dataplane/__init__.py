"""The programs of the Go module dataplane/, as their users run them."""
