"""The sessions that every contender of run.py stores: one of about 600 bytes as JSON, and one of 64 KB."""

import json
import random
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

USERS = 1000  # rows of auth_user, for the engines that have a foreign key to it
LARGE = 64 * 1024  # bytes as JSON
CONCURRENT = 50  # tasks at once

BACKEND = "django.contrib.auth.backends.ModelBackend"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WORDS = ("blue", "cotton", "desk", "lamp", "brass", "oak", "chair", "linen", "wool", "rug", "round", "stone", "vase")
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


def auth(number: int) -> dict[str, str]:
    """What `django.contrib.auth.login()` stores."""
    user = str(number % USERS + 1)
    return {"_auth_user_id": user, "_auth_user_backend": BACKEND, "_auth_user_hash": sha256(user.encode()).hexdigest()}


def anonymous(number: int, items: int = 6) -> dict[str, Any]:
    """A visitor with a cart, who has not logged in."""
    dice = random.Random(number)
    return {
        "visits": dice.randrange(1, 500),
        "_csrftoken": "".join(dice.choices(LETTERS, k=32)),
        "_language": "en",
        "last_seen": (BEGIN + timedelta(seconds=dice.randrange(10**7))).isoformat(),
        "cart": [_item(dice) for _ in range(items)],
    }


def signed_in(number: int) -> dict[str, Any]:
    return auth(number) | anonymous(number)


def visitor(number: int) -> dict[str, Any]:
    """Anonymous, and as large as `signed_in()`."""
    return anonymous(number, items=10)


def large(number: int) -> dict[str, Any]:
    """`signed_in()` with a list of what was looked at."""
    data, dice = signed_in(number), random.Random(number)
    room = LARGE - size(data)
    data["viewed"] = []
    while room > 100:
        data["viewed"].append(item := _item(dice) | {"name": " ".join(dice.choices(WORDS, k=4))})
        room -= size(item) + 1
    return data


def size(data: Any) -> int:
    """Bytes, as compact JSON."""
    return len(as_json(data))


def as_json(data: Any) -> bytes:
    return json.dumps(data, separators=(",", ":")).encode()


def _item(dice: random.Random) -> dict[str, Any]:
    return {
        "sku": f"A{dice.randrange(10**6):06}",
        "quantity": dice.randrange(1, 5),
        "price": f"{dice.randrange(9900) / 100:.2f}",
    }
