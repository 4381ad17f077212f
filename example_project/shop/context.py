"""What every page's header shows: the engine, and the web server that answered."""

import os
from typing import Any

from django.conf import settings
from django.http import HttpRequest


def server(request: HttpRequest) -> dict[str, Any]:
    return {
        "engine": settings.SESSION_ENGINE,
        "hostname": request.get_host().split(":")[0],
        "pid": os.getpid(),
        "port": request.get_port(),
        "ports": settings.DEMO_PORTS,
    }
