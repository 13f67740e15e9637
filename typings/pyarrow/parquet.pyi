"""What this project uses of pyarrow.parquet, which has no types of its own."""

from collections.abc import Sequence
from pathlib import Path

from pyarrow import Schema, Table

def read_schema(where: Path) -> Schema: ...
def read_table(source: Path, *, columns: Sequence[str] | None = None) -> Table: ...
def write_table(table: Table, where: Path, *, compression: str = "snappy") -> None: ...
