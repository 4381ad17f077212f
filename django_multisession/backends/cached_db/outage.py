"""Whether Redis is asked: after it could not be reached, it is left alone for a while. And what it is to hear of then.

A refusal (no memory, no permission) is no outage of the connection: each command is sent, and Redis says no at once.
Each outage, and each kind of command that is refused, is logged once, and its end. Those that follow one another within
QUIET are one: a pool of connections that is too small has hundreds in a second.

The keys that Redis was not told to forget are kept, the last MOST of them for as long as a copy may live: whoever asks
first when it may be asked again says them first. So no request of this process reads what another has changed here.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from time import monotonic

import redis

from ...conf import conf

PAUSE = 1.0  # seconds
QUIET = 10.0  # seconds
MOST = 10_000
TELLING = "DEL"

logger = logging.getLogger("django_multisession")


class Outage:
    def __init__(self) -> None:
        self._until: float | None = None  # when it may be asked again; None: there is no outage
        self._is_said, self._quiet_until = False, 0.0
        self._refused: set[str] = set()
        self._untold: OrderedDict[str, float] = OrderedDict()  # keys, and when copies of before are too old
        self._telling: set[object] = set()  # who is saying some of them just now
        self.is_known = False  # while all is well nobody needs to call anything here

    def may_ask(self) -> bool:
        """During an outage one request asks, and the others do without until it knows."""
        if self._until is None:
            return True
        now = monotonic()
        if now < self._until:
            return False
        self._until = now + conf.TIMEOUT + PAUSE
        return True

    @property
    def has_untold(self) -> bool:
        return bool(self._untold or self._telling)

    def untold(self, keys: Iterable[str]) -> None:
        self._owe(dict.fromkeys(keys, monotonic() + conf.CACHE_AGE))

    @contextmanager
    def telling(self, keys: Iterable[str]) -> Iterator[dict[str, float]]:
        """These, and what was not told before, for one request, which takes out what it has said. Where there is such,
        the others read nothing from Redis until it is done."""
        mark, owed = object(), dict.fromkeys(keys, monotonic() + conf.CACHE_AGE)
        if self._untold:
            self._telling.add(mark)  # before the first is taken
            owed = self._taken() | owed
        try:
            yield owed
        except BaseException:  # stopped in the midst of it, too
            self._owe(owed)
            raise
        finally:
            self._telling.discard(mark)

    def _owe(self, owed: Mapping[str, float]) -> None:
        """Without a lock: this runs wherever Python closes a coroutine."""
        for key, until in owed.items():
            self._untold[key] = max(until, self._untold.get(key, until))
        with suppress(KeyError):
            while len(self._untold) > MOST:
                self._untold.popitem(last=False)
        self.is_known = True

    def _taken(self) -> dict[str, float]:
        now, found = monotonic(), {}
        with suppress(KeyError):
            while True:
                key, until = self._untold.popitem(last=False)
                if now < until:
                    found[key] = until
        return found

    def failed(self, name: str, error: Exception) -> None:
        self.is_known = True
        if isinstance(error, redis.ResponseError) and not isinstance(error, redis.ConnectionError):
            if name not in self._refused:
                self._refused.add(name)
                logger.warning("Redis refuses %s, so sessions are read from the database: %s", name, error)
            if name != TELLING:
                return
        elif not self._is_said and monotonic() >= self._quiet_until:
            self._is_said, self._quiet_until = True, monotonic() + QUIET
            logger.warning("Redis is away, so sessions are read from the database: %s", error)
        self._until = monotonic() + PAUSE

    def unknown(self) -> None:
        """Whoever was to find out was stopped."""
        if self._until is not None:
            self._until = monotonic()

    def answered(self, name: str) -> None:
        self._until = None
        if self._is_said:
            self._is_said = False
            logger.info("Redis answers again: sessions are read from it.")
        self._refused.discard(name)
        self.is_known = bool(self._refused)
        if self.has_untold:  # looked at afterwards: else what another thread adds meanwhile would be forgotten
            self.is_known = True
