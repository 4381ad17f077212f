"""Django session engines for Redis, MongoDB and SQL over one base `SessionStore`."""

__version__ = "0.1.0"
