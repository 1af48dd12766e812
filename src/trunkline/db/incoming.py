"""Many rows in one statement.

A batch of rows goes to the database as a single parameter, a JSON array of arrays, and is a table there. One
statement of constant text then serves every batch size: it is compiled once, and a driver thread gives up and
takes back Python's interpreter lock once per batch, not once per row.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import ColumnClause, Subquery, Text, bindparam, func, select

__all__ = ["encode_rows", "incoming"]


def incoming(*columns: "ColumnClause[Any]") -> Subquery:
    """The rows of the parameter ``rows`` (see `encode_rows`) as a table with these columns.

    The columns are stand-ins, made with `sqlalchemy.column` for their names and types.
    """
    each = func.json_each(bindparam("rows", type_=Text)).table_valued("key", "value", name="each_row")
    return (
        select(
            each.c.key.label("position"),
            *(
                func.json_extract(each.c.value, f"$[{index}]", type_=column.type).label(column.name)
                for index, column in enumerate(columns)
            ),
        )
        .select_from(each)
        .subquery("incoming")
    )


def encode_rows(rows: Sequence[Sequence[Any]]) -> dict[str, str]:
    """The parameters that carry `rows` to a statement over `incoming`."""
    return {"rows": msgspec.json.encode(rows).decode()}
