"""A line between a Hub and its clients: so many bytes a second, and a way that takes a while."""

import threading
import time

BURST = 0.005
"""Seconds of the line's rate that may be made up for at once after nobody had anything to send."""


class Line:
    """What all connections of a host share.

    Args:
        rate: bytes of bodies per second, all connections together; 0 for all the loopback gives.
        latency: seconds before the first line of each answer.
    """

    def __init__(self, *, rate: float = 0.0, latency: float = 0.0):
        self.rate = rate
        self.latency = latency
        self._lock = threading.Lock()
        self._free_at = 0.0

    def wait_for(self, count: int) -> None:
        """Return when so many bytes may be sent."""
        if not self.rate:
            return
        now = time.monotonic()
        with self._lock:
            self._free_at = max(self._free_at, now - BURST) + count / self.rate
            until = self._free_at
        if until > now:
            time.sleep(until - now)
