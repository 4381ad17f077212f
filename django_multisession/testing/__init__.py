"""What tests an engine: the contract, and the fixtures that it is run with. See docs/writing-an-engine.md.

Imported by tests alone: `contract` and `fixtures` need pytest and time-machine, which the extra `testing` installs.
"""
