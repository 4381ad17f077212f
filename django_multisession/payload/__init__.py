"""A session's data as bytes, and back: serialized, compressed, authenticated; and two versions of it made one."""
