"""What some old packages need to run with today's Django and drivers; their own code stays as it is."""

from typing import Any

import pymongo


def mongoengine(addresses: dict[str, Any]) -> None:
    import mongoengine

    mongoengine.connect(host=addresses["mongodb"])


def mongo_sessions(addresses: dict[str, Any]) -> None:
    import django.utils.encoding
    from pymongo.collection import Collection

    django.utils.encoding.force_text = django.utils.encoding.force_str
    Collection.ensure_index = Collection.create_index
    Collection.update = Collection.update_one
    Collection.remove = Collection.delete_many


def mdbsession(addresses: dict[str, Any]) -> None:
    from django.conf import settings

    settings.MONGO_DB = pymongo.MongoClient(addresses["mongodb"]).get_default_database()
    settings.MONGO_DB["session_store"].create_index("session_key", unique=True)
