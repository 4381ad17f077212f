"""The URLs that `MULTISESSION_REDIS` takes beside redis-py's own, and the client of each.

    redis+cluster://user:password@host:7000,host:7001?option=value        rediss+cluster:// with TLS
    redis+sentinel://user:password@host:26379,host:26379/service/1?option=value      rediss+sentinel://

User, password and database are those of the servers that hold the data, and so are all options but `sentinel_*`, which
are the sentinels'. Hosts without a port have 6379, sentinels 26379.
"""

from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

# Of redis-py nothing is imported before it is asked for: the checks read these URLs where it is missing, too.

CLUSTER, SENTINEL = "cluster", "sentinel"
OF_SENTINELS = "sentinel_"
BY_HOST = "redis:", "rediss:", "redis+", "rediss+"
TRUTH = {"true": True, "yes": True, "false": False, "no": False}
PORTS = {CLUSTER: 6379, SENTINEL: 26379}


def client_of(url: str, **defaults: Any) -> Any:
    """Raises `ValueError` for what is no URL of Redis."""
    import redis
    from redis.cluster import ClusterNode, RedisCluster

    if (kind := kind_of(url)) is None:
        return redis.Redis.from_url(url, **defaults)
    options = defaults | options_of(url)
    nodes = addresses(url)
    if kind == CLUSTER:
        if options.pop("db", 0):
            raise ValueError("a cluster has database 0 alone")
        return RedisCluster(startup_nodes=[ClusterNode(*address) for address in nodes], **options)  # type: ignore[no-untyped-call]
    sentinel = redis.Sentinel(nodes, sentinel_kwargs=defaults | sentinel_options(url))  # type: ignore[no-untyped-call]
    return sentinel.master_for(service_of(url), **options)  # type: ignore[no-untyped-call]


def kind_of(url: object) -> str | None:
    """ "cluster", "sentinel", or `None`: a URL as redis-py knows it, or none at all."""
    scheme = url.partition("://")[0] if isinstance(url, str) else ""
    return next((kind for kind in PORTS if scheme in (f"redis+{kind}", f"rediss+{kind}")), None)


def options_of(url: str) -> dict[str, Any]:
    """The connection options of the data servers, as `redis.connection.parse_url()` reads them.

    `ssl` is among them, and `db`, where there is one.
    """
    from redis.connection import parse_url

    parts = urlsplit(url)
    scheme = parts.scheme.partition("+")[0]
    login, at, _ = parts.netloc.rpartition("@")
    path = parts.path if kind_of(url) == CLUSTER else "/" + "".join(parts.path.strip("/").split("/")[1:2])
    query = [(name, value) for name, value in _query(url) if not name.startswith(OF_SENTINELS)]
    single = urlunsplit((scheme, f"{login}{at}localhost", path, urlencode(query), ""))
    found = dict(parse_url(single))  # type: ignore[no-untyped-call]
    found.pop("host", None)
    found.pop("connection_class", None)
    return found | ({"ssl": True} if scheme == "rediss" else {})


def sentinel_options(url: str) -> dict[str, Any]:
    from redis.connection import parse_url

    names = [(name[len(OF_SENTINELS) :], value) for name, value in _query(url) if name.startswith(OF_SENTINELS)]
    found = dict(parse_url(f"redis://localhost?{urlencode(names)}"))  # type: ignore[no-untyped-call]
    found.pop("host", None)
    return {name: TRUTH.get(str(value).lower(), value) for name, value in found.items()}


def addresses(url: str) -> list[tuple[str, int]]:
    """Raises `ValueError` where there is none."""
    default = PORTS[str(kind_of(url))]
    found = []
    for each in urlsplit(url).netloc.rpartition("@")[2].split(","):
        parts = urlsplit(f"//{each}")
        if not parts.hostname:
            raise ValueError(f"no host in {url.partition('://')[0]}://...")
        found.append((parts.hostname, parts.port or default))
    return found


def service_of(url: str) -> str:
    name = unquote(urlsplit(url).path.strip("/").partition("/")[0])
    if not name:
        raise ValueError("no name of a service behind the sentinels")
    return name


def database_of(url: str) -> str:
    """What stands where redis-py looks for the number of a database; nothing of a URL that names no host."""
    if not url.startswith(BY_HOST):
        return ""
    path = unquote(url.partition("://")[2].partition("#")[0].partition("?")[0].partition("/")[2].strip("/"))
    if "@" in path:  # the rest of a password with a slash, which nobody is to read; redis-py refuses the URL
        return ""
    return path.partition("/")[2] if kind_of(url) == SENTINEL else path


def _query(url: str) -> list[tuple[str, str]]:
    return parse_qsl(urlsplit(url).query)
