"""How many bytes a session of 600 bytes takes on its server, with its part of the indexes, one session per user."""

from pathlib import Path
from typing import Any

from benchmarks.engines import data
from benchmarks.engines.contenders import Contender

FILLED = 1000  # sessions that the engine itself stores; in SQL and MongoDB they are then copied under new keys
DOCUMENTS, FILE_ROWS = 20_000, 100_000  # at most


def bytes_of(starter: Any, contender: Contender, rows: int) -> dict[str, float]:
    """`rows` is how many there are to be where copying is cheap."""
    with starter.child(contender) as child:
        if contender.server == "redis":
            return _redis(child)
        child.ask("fill", sessions=FILLED)
        if contender.server == "mongodb":
            return _mongodb(child, min(rows, DOCUMENTS))
        if contender.model is None and contender.engine:
            return _files(Path(child.addresses["files"]))
        count = _postgres if contender.server == "postgres" else _sqlite
        return count(child.addresses[contender.server], child.ask("table"), rows)


def _redis(child: Any) -> dict[str, float]:
    """By key (MEMORY USAGE), and by how the server grew: with the entries of its tables of keys and of expiries."""
    import redis

    with redis.Redis.from_url(child.addresses["redis"]) as client:
        client.flushdb()
        before = client.info("memory")["used_memory"]
        child.ask("fill", sessions=FILLED)
        grown = client.info("memory")["used_memory"] - before
        usage = sum(client.memory_usage(key, samples=0) or 0 for key in client.scan_iter(count=1000))
        values = sum(client.strlen(key) for key in client.scan_iter(count=1000, _type="string"))
    return {"in all": usage / FILLED, "value": values / FILLED, "server grew by": grown / FILLED}


def _postgres(url: str, table: dict[str, Any], rows: int) -> dict[str, float]:
    import psycopg

    name = table["table"]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"CREATE TEMP TABLE filled AS SELECT * FROM {name} LIMIT {FILLED}")
        connection.execute(f"TRUNCATE {name} CASCADE")
        key, expiry = _postgres_values(connection, table)
        values = ", ".join({table["key"]: key, table["expiry"]: expiry}.get(each, each) for each in table["columns"])
        connection.execute(
            f"INSERT INTO {name} ({', '.join(table['columns'])}) "
            f"SELECT {values} FROM filled, generate_series(1, {max(1, rows // FILLED)}) copy"
        )
        connection.execute(f"VACUUM ANALYZE {name}")
        [sizes] = connection.execute(
            "SELECT pg_total_relation_size(%s), pg_table_size(%s), pg_indexes_size(%s)", [name] * 3
        ).fetchall()
        [stored] = connection.execute(f"SELECT count(*) FROM {name}").fetchone() or [0]
        connection.execute(f"TRUNCATE {name} CASCADE")
    return dict(zip(("in all", "table", "indexes"), (size / stored for size in sizes), strict=True)) | {"rows": stored}


def _postgres_values(connection: Any, table: dict[str, Any]) -> tuple[str, str]:
    """Random keys of the same type and length, and expiries spread over two weeks."""
    key, expiry = table["key"], table["expiry"]
    [kind, length, moment] = connection.execute(
        f"SELECT pg_typeof({key})::text, length({key}), pg_typeof({expiry})::text FROM filled LIMIT 1"
    ).fetchone()
    digest = f"sha256((random()::text || copy || {key}::text)::bytea)"
    keys = {"bytea": digest, "uuid": "gen_random_uuid()"}.get(kind, f"left(encode({digest}, 'hex'), {length})")
    earlier = "(random() * 1209600000)::bigint" if moment == "bigint" else "random() * interval '14 days'"
    return keys, f"{expiry} - {earlier}"


def _sqlite(file: str, table: dict[str, Any], rows: int) -> dict[str, float]:
    import sqlite3

    rows = min(rows, FILE_ROWS)
    key, name = table["key"], table["table"]
    with sqlite3.connect(file, isolation_level=None) as connection:
        connection.execute(f"CREATE TEMP TABLE filled AS SELECT * FROM {name} LIMIT {FILLED}")
        connection.execute(f"DELETE FROM {name}")
        connection.execute("VACUUM")
        [empty] = connection.execute("PRAGMA page_count").fetchone()
        [kind, length] = connection.execute(f"SELECT typeof({key}), length({key}) FROM filled").fetchone()
        keys = f"randomblob({length})" if kind == "blob" else f"substr(lower(hex(randomblob(32))), 1, {length})"
        values = ", ".join(keys if each == key else each for each in table["columns"])
        for _ in range(max(1, rows // FILLED)):
            connection.execute(f"INSERT INTO {name} ({', '.join(table['columns'])}) SELECT {values} FROM filled")
        [pages] = connection.execute("PRAGMA page_count").fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
        [stored] = connection.execute(f"SELECT count(*) FROM {name}").fetchone()
    return {"in all": (pages - empty) * size / stored, "rows": stored}


def _files(directory: Path) -> dict[str, float]:
    found = [each.stat() for each in directory.iterdir()]
    return {"in all": sum(each.st_blocks * 512 for each in found) / len(found)}


def _mongodb(child: Any, documents: int) -> dict[str, float]:
    import pymongo

    with pymongo.MongoClient(child.addresses["mongodb"]) as client:
        database = client.get_default_database()
        collection = max(
            (database[name] for name in database.list_collection_names()), key=lambda each: each.count_documents({})
        )
        filled = list(collection.find())
        collection.delete_many({})
        for copy in range(max(1, documents // len(filled))):
            collection.insert_many([_copied(each, copy) for each in filled])
        told = database.command("collStats", collection.name)
    stored = told["count"]
    return {
        "in all": (told["size"] + told["totalIndexSize"]) / stored,
        "document": told["size"] / stored,
        "indexes": told["totalIndexSize"] / stored,
        "rows": stored,
    }


def _copied(document: dict[str, Any], copy: int) -> dict[str, Any]:
    """Under another key of the same length, in `_id` and in `session_key`."""
    return {
        name: f"{copy:06}{value[6:]}" if name in ("_id", "session_key") and isinstance(value, str) else value
        for name, value in document.items()
        if name != "_id" or isinstance(value, str)
    }


assert FILLED <= data.USERS  # one session per user
