"""What goes into the pods that run vLLM."""
