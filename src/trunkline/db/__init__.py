"""Tables, migrations, and the one writer with group commit."""

from trunkline.db.database import Database
from trunkline.db.incoming import encode_rows, incoming
from trunkline.db.writer import Write, Writer

__all__ = ["Database", "Write", "Writer", "encode_rows", "incoming"]
