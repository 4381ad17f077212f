"""The old side where the cookie is the session: Django's `signed_cookies`.

The key that a session has on the server is derived from the cookie and the site's secret: requests that come at once
with one cookie get one session, and its mark keeps an ended one ended. A save on the old side makes a new cookie, and
with it another key: `renamed` tells the store. `exists()` of that engine knows nothing, so the cookie is loaded.

Of two anonymous visitors who come in the same second both may have the same cookie, `{"testcookie": "worked"}` say, and
they must not meet in one session. So where nobody is signed in the cookie is used as it is, and the next save makes a
session with a key of its own. Cookies that are signed here differ, by a random `_cookie` that is never seen.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from django.conf import settings
from django.core import signing
from django.utils.crypto import salted_hmac

from ...payload.codecs import UNREADABLE
from ...records import KEY_LENGTH, Record, in_milliseconds, new_session_key
from .foreign import Foreign

SIGNED_COOKIES = "django.contrib.sessions.backends.signed_cookies"
NONCE_KEY, NONCE_LENGTH = "_cookie", 12
SEPARATOR = ":"  # of django.core.signing; no key of a server's session has it


def is_cookie(key: str) -> bool:
    return SEPARATOR in key


def server_key(cookie: str) -> str:
    """The key of the session once it is on the server. By the oldest secret: it outlasts a rotation of the newest."""
    secret = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS][-1]
    made = salted_hmac("django_multisession.backends.moving", cookie, secret=secret, algorithm="sha256")
    return made.hexdigest()[:KEY_LENGTH]


class InCookie(Foreign):
    updates_only = True

    def can_ask(self, key: str | None) -> bool:
        return key is not None and key.isascii() and is_cookie(key)

    def find(self, key: str) -> tuple[dict[str, Any], datetime] | None:
        session = self.engine(key)
        age = session.get_session_cookie_age()
        try:
            data = signing.loads(key, serializer=session.serializer, max_age=age, salt=SIGNED_COOKIES)
            signed = signing.b62_decode(key.rsplit(SEPARATOR, 2)[1])
        except (*UNREADABLE, signing.BadSignature):
            return None
        data.pop(NONCE_KEY, None)
        return data, in_milliseconds(datetime.fromtimestamp(signed, UTC) + timedelta(seconds=age))

    async def insert(self, record: Record, key: str) -> bool:
        self.renamed[record.id] = self._cookie(record)
        return True

    async def replace(self, record: Record, key: str) -> Record | None:
        self.renamed[record.id] = self._cookie(record)
        return record

    async def touch(self, id: str, key: str, expires_at: datetime) -> bool:
        if (found := self.find(key)) is None:
            return False
        self.renamed[id] = self._signed(found[0])
        return True

    async def remove(self, id: str, key: str) -> bool:
        return True  # the browser has it; its mark ends it

    def _cookie(self, record: Record) -> str:
        return self._signed(self._data(record))

    def _signed(self, data: dict[str, Any]) -> str:
        session = self.engine()
        session._session_cache = {**data, NONCE_KEY: new_session_key()[:NONCE_LENGTH]}
        return str(session._get_session_key())
