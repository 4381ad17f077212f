from django.dispatch import Signal

sessions_purged = Signal()
"""Sent after each run of the purge that did not fail, with `purged` (a `purge.Purged`) and `table`, its name."""

session_started = Signal()
"""Sent after a log-in was saved, with `user_id` (text, as in the session) and `id` (a `UserSession.id`)."""

session_ended = Signal()
"""Sent once, by who ended the session of a user, with `user_id`, `id` and `reason` (one of `lifecycle.py`'s)."""
