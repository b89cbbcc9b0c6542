"""How far bytes are on their way to a registry, from one, or to a disk."""

import time

from core.progress import Progress
from oci.blobs import Seen

# Between two lines about one large blob.
_TELL_EVERY_S = 5.0


class Meter:
    """Tells how far a blob is, now and then."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def __call__(self, what: str, size: int) -> Seen:
        told = time.monotonic()

        def seen(done: int) -> None:
            nonlocal told
            if time.monotonic() - told > _TELL_EVERY_S:
                told = time.monotonic()
                self._progress.say(f"  {what}: {done / max(size, 1):.0%} of {shown(size)}")

        return seen


def shown(count: int) -> str:
    """Bytes as a person reads them."""
    for unit, size in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
