"""What a site's tests use (docs/testing.md), and what tests an engine: the contract, and the fixtures that it is run
with (docs/writing-an-engine.md).

Imported by tests alone: `contract` and `fixtures` need pytest and time-machine, which the extra `testing` installs.
"""

from ..test_runs import SitesOwnStore as SitesOwnStore
from .isolation import IsolatedSessionsMixin as IsolatedSessionsMixin
from .isolation import isolated_sessions as isolated_sessions
