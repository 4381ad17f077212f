from django.dispatch import Signal

sessions_purged = Signal()
"""Sent after each run of the purge that did not fail, with `purged` (a `purge.Purged`) and `table`, its name."""

session_started = Signal()
"""Sent after a log-in was saved, with `user_id` (text, as in the session) and `id` (a `UserSession.id`).

And with `device` ("Firefox on Linux"), `ip` and `is_new_device`: whether none of the user's other live sessions is from
such a browser. All three are `None` where `MULTISESSION_TRACK_CLIENT` has recorded nothing.
"""

session_ended = Signal()
"""Sent once, by who ended the session of a user, with `user_id`, `id` and `reason` (one of `lifecycle.py`'s)."""

session_client_changed = Signal()
"""Sent once for a session that another browser or network uses than has signed in, with `user_id`, `id`, `changed`
("browser" or "network"), and `before` and `now`: each `{"ip": ..., "user_agent": ...}`. See
`MULTISESSION_ON_CLIENT_CHANGE`."""
