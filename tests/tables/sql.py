"""Runs the queries of docs/src/sql.md, as a reader of the page would.

`sql.py PAGE` runs the blocks of SQL in each section in order, in a folder with tcptrace.jsonl. It
prints an object: section to the rows of each query.
"""

import json
import re
import sys

import chdb.session
import duckdb

page = open(sys.argv[1]).read()
sections = dict(re.findall(r"^## (\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
blocks = {
    name: re.findall(r"^```sql\n(.*?);\n```$", text, re.MULTILINE | re.DOTALL)
    for name, text in sections.items()
}

connection = duckdb.connect()
session = chdb.session.Session()


def by_duckdb(query):
    # ClickHouse prints a float without a fraction as an integer.
    as_number = lambda it: int(it) if isinstance(it, float) and it.is_integer() else it
    rows = connection.execute(query).fetchall()
    return [[as_number(it) for it in row] for row in rows]


def by_clickhouse(query):
    answer = str(session.query(query, "JSONCompact"))
    # Integers of 64 bits are strings in this format.
    as_number = lambda it: int(it) if isinstance(it, str) and it.isdigit() else it
    rows = json.loads(answer)["data"] if answer.strip() else []
    return [[as_number(it) for it in row] for row in rows]


RUN = {"DuckDB": by_duckdb, "ClickHouse": by_clickhouse}
found = {}
for name, queries in blocks.items():
    answers = [(query, RUN[name](query)) for query in queries]
    found[name] = [rows for query, rows in answers if not query.startswith("create")]
json.dump(found, sys.stdout)
