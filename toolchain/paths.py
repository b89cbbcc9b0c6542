"""The three folders of a clone. Standard library only: this is imported before anything is installed."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
"""The clone."""

CACHE = Path(os.environ.get("FLEET_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "inference-fleet").absolute()
"""Built tools, kept between clones. Removing it costs time only."""

STATE = Path(os.environ.get("FLEET_STATE") or REPO / ".fleet").absolute()
"""Everything of a running local fleet, the state of its Pulumi stack included. Removed by `make down`."""
