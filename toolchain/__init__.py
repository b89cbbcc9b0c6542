"""Pinned tools: where their versions stand, how they are had, what a shell needs to use them."""
