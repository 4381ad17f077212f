"""Who signs in and how sessions end, in the server's log."""

import logging

from django.dispatch import receiver

from django_multisession.signals import session_ended, session_started

logger = logging.getLogger("shop.audit")


@receiver(session_started)
def started(user_id: str, id: str, **_kwargs: object) -> None:
    logger.info("Session %s of user %s started.", id, user_id)


@receiver(session_ended)
def ended(user_id: str, id: str, reason: str, **_kwargs: object) -> None:
    logger.info("Session %s of user %s ended: %s.", id, user_id, reason)
