"""The serving runtime image: what it is built from, the builders, its list of contents, its way to a registry, and its trial."""
