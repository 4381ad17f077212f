"""What a purge is asked to remove, and by whose clock that is meant."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from .durations import before
from .exceptions import InvalidOption
from .records import utcnow
from .sweep import Criteria

APART = timedelta(minutes=1)  # that clocks may differ however short the grace is, so that `clear_expired()` works


@dataclass(frozen=True)
class Asked:
    """The criteria as they were asked for: ages, in seconds, or a moment."""

    grace: float
    older_than: float | datetime | None = None
    created_before: float | datetime | None = None
    anonymous_only: bool = False

    def at(self, now: datetime) -> Criteria:
        return Criteria(
            before=now - timedelta(seconds=self.grace),
            updated_before=before(now, self.older_than),
            created_before=before(now, self.created_before),
            anonymous_only=self.anonymous_only,
        )

    def by(self, server: datetime, since: datetime) -> Criteria:
        """The criteria by the server's clock, which was asked after `since`. Refuses where this host's goes far apart.

        What others have stored is not to go by the clock of one host; and where the two differ nobody knows whose is
        wrong, so by which one sessions get their expiry.
        """
        until, most = utcnow(), max(APART, timedelta(seconds=self.grace))
        if not since - most <= server <= until + most:
            raise InvalidOption(
                "the clock of this host",
                f"{until:%Y-%m-%d %H:%M:%S}",
                f"the server's is {server:%Y-%m-%d %H:%M:%S} (both in UTC), and live sessions might go. Set them "
                f"right: they may differ by the grace, or by a minute; here by {most}.",
            )
        return self.at(server)
