"""Limits for the network, and what happens when it fails."""

from __future__ import annotations

import email.utils
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

from msport.errors import HubError

# Status codes of a server that is overloaded, restarting, or limits the rate of requests.
PASSING_STATUSES = {408, 425, 429, 500, 502, 503, 504}


@dataclass(frozen=True, slots=True)
class Network:
    """Limits for all downloads; times are in seconds.

    A connection fails if it is not made within `connect_timeout`, if no response begins within both timeouts together,
    if it is silent for `stall_timeout`, or if it is slower than `min_rate` bytes per second over that time. A failed
    request is repeated up to `retries` times in a row. The delays are `first_delay`, twice that, and so on up to
    `longest_delay`, each shortened at random by up to a half, or what the server asks for. Received bytes are kept; if
    they came fast enough, they reset the count of failures. The total wait for one range, or for a list of files, ends
    after `patience`.

    The default of `min_rate` ends only useless connections: eight at that rate would take 20 days for 14 GB.

    At most `connections` are open at the same time. One request asks for at most `range_nbytes` bytes. If a tensor is
    read in smaller pieces, `window_nbytes` bytes are fetched ahead.
    """

    connect_timeout: float = 10.0
    stall_timeout: float = 30.0
    min_rate: float = 1000.0
    retries: int = 8
    first_delay: float = 1.0
    longest_delay: float = 30.0
    patience: float = 300.0
    connections: int = 8
    range_nbytes: int = 64 << 20
    window_nbytes: int = 4 << 20


class TransientError(Exception):
    """A request failed temporarily. `retry_after` is the time in seconds that the server asks to wait."""

    def __init__(self, reason: str, retry_after: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class GaveUpError(HubError):
    """The network or the server failed with `fault` until all limits were used up."""

    def __init__(self, message: str, fault: TransientError) -> None:
        super().__init__(message)
        self.fault = fault


class Attempts:
    """The attempts at one request, `what`: waits between them and gives up at the limits."""

    def __init__(self, network: Network, what: str, wait: Callable[[float], object] = time.sleep) -> None:
        self._network = network
        self._what = what
        self._wait = wait
        self._failures = 0
        self._waited = 0.0
        self._since = time.monotonic()

    def failed(self, fault: TransientError, received: int = 0) -> None:
        """Wait before the next attempt; raises GaveUpError if there is none left. The last one received `received`
        bytes.
        """
        network = self._network
        progress = received > 0 and received >= network.min_rate * (time.monotonic() - self._since)
        self._failures = 1 if progress else self._failures + 1
        delay = min(network.first_delay * 2 ** (self._failures - 1), network.longest_delay)
        delay *= random.uniform(0.5, 1.0)  # noqa: S311  only spreads clients over time
        delay = max(delay, fault.retry_after)
        if self._failures > network.retries:
            message = f"{self._what}: {fault}; gave up after {self._failures} attempts, try again later"
            raise GaveUpError(message, fault)
        if self._waited + delay > network.patience:
            waited = f"waiting {self._waited + delay:.0f} s is longer than {network.patience:.0f} s"
            raise GaveUpError(f"{self._what}: {fault}; gave up, since {waited}; try again later", fault)
        self._waited += delay
        self._wait(delay)
        self._since = time.monotonic()


def parse_retry_after(value: str | None) -> float:
    """Seconds to wait according to a ``Retry-After`` header (a number or a date); 0 without one."""
    if value is None:
        return 0.0
    if value.strip().isdecimal():
        return float(value)
    try:
        moment = email.utils.parsedate_to_datetime(value)
        return max(moment.timestamp() - time.time(), 0.0)
    except (ValueError, OverflowError):
        return 0.0
