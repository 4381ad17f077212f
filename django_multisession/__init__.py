"""Django session engines for Redis, MongoDB and SQL over one base `SessionStore`."""

__version__ = "0.2.0"
