from django.dispatch import Signal

sessions_purged = Signal()
"""Sent after each run of the purge that did not fail, with `purged` (a `purge.Purged`) and `table`, its name."""
