"""Whether a session is used from where it was begun: a cookie that was stolen comes from another browser.

With `MULTISESSION_ON_CLIENT_CHANGE` the request that loads a session is compared with what was recorded at the log-in
(`devices.CLIENT_KEY`): its browser, by the `User-Agent` header without version numbers, so an update is no change; and
with `MULTISESSION_CLIENT_NETWORK` its network, /24 of IPv4 and /48 of IPv6. Where either is not known nothing is said.

    signal  `session_client_changed` is sent, once: whoever inserts the session's mark sends it, and the data remember
            it under `_client`: "changed", so that later requests do not ask the store
    end     so it is, and the session ends, before the view has seen anything of it

A mark is a record without a body of the kind `codecs.ROTATED`, which is no session: see `rotation.py`.
"""

from hashlib import sha256
from typing import Any, cast

from .. import middleware
from ..conf import conf
from ..records import Record
from ..twins import Face
from . import devices, lifecycle, rotation

BROWSER, NETWORK = "browser", "network"
END = "end"
CHANGED = "changed"


async def load(face: Face, store: Any) -> dict[str, Any]:
    """What `SessionStore._load()` gives, for the session of the request at work; `{}` if that has ended it."""
    storage, request = getattr(store, face.storage), cast(Any, middleware.current.get())
    data: dict[str, Any] = await store._load(storage)
    is_own = getattr(request, "session", None) is store
    if store._record is None or not is_own:
        return data
    known = data.get(devices.CLIENT_KEY)
    if not isinstance(known, dict) or CHANGED in known or (what := change(known, now := of(request))) is None:
        return data
    about = {"changed": what, "before": dict(known), "now": now}
    if conf.ON_CLIENT_CHANGE == END:
        return await _end(face, storage, store, about)
    known[CHANGED] = what
    store.modified = True
    if await storage.insert(_mark(store._record)):
        await lifecycle.tell_of_change(face, storage, store._record, about)
    return data


async def _end(face: Face, storage: Any, store: Any, about: dict[str, Any]) -> dict[str, Any]:
    record: Record = store._record
    if await lifecycle.end(face, storage, [record], lifecycle.CLIENT):
        await lifecycle.tell_of_change(face, storage, record, about)
    store._forget(record.id)
    store._session_key = None
    return {}


def of(request: Any) -> dict[str, str | None]:
    return {"ip": devices.ip_of(request), "user_agent": devices.agent_of(request)}


def change(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """What is another: "browser", "network", or nothing."""
    if before.get("user_agent") and devices.kind_of(before["user_agent"]) != devices.kind_of(now["user_agent"]):
        return BROWSER
    networks = [devices.network_of(each.get("ip")) for each in (before, now)]
    return NETWORK if conf.CLIENT_NETWORK and None not in networks and networks[0] != networks[1] else None


def _mark(record: Record) -> Record:
    return rotation.mark_under(sha256(b"client" + record.id.encode()).hexdigest(), b"", record.expires_at)
