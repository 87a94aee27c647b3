"""Loads exports of tcptrace, as anyone would: what each library finds in them, as JSON.

`load.py FILE…` prints an object: file to library to what it has found.
"""

import json
import sys

import chdb
import duckdb
import pandas
import pyarrow.json

JOIN = """
    select count(*), sum(c.accept_queue_ns), max(a.comm)
    from {0} a join {0} c on a.conn = c.conn
    where a.event = 'accept' and c.event = 'connection'
"""
KINDS = "select event, count(*), count(ts), count(mono_ns) from {0} group by event"


def found(kinds, join, is_time):
    """The same form for all: lines, `ts` and `mono_ns` by kind; of accept() calls beside their
    connections how many there are, how long they waited, and a name; whether `ts` is a time."""
    kinds = {kind: [int(it) for it in counts] for kind, *counts in kinds}
    # A trace in which nothing was accepted lacks some columns.
    rows, waited, comm = join() if "accept" in kinds else (0, 0, None)
    joined = [int(rows), int(waited or 0), comm or None]
    return {"kinds": kinds, "joined": joined, "timestamp": bool(is_time)}


def by_duckdb(path):
    def ask(query):
        return duckdb.sql(query).fetchall()

    table = f"'{path}'"
    ((type_of_ts,),) = ask(f"select typeof(ts) from {table} limit 1")
    return found(
        ask(KINDS.format(table)),
        lambda: ask(JOIN.format(table))[0],
        type_of_ts.startswith("TIMESTAMP"),
    )


def by_clickhouse(path):
    def ask(query):
        return json.loads(str(chdb.query(query, "JSONCompact")))["data"]

    table = f"file('{path}')"
    ((type_of_ts,),) = ask(f"select toTypeName(ts) from {table} limit 1")
    return found(
        ask(KINDS.format(table)),
        lambda: ask(JOIN.format(table))[0],
        "DateTime64(9)" in type_of_ts,
    )


def by_pandas(path):
    return in_frame(pandas.read_json(path, lines=True))


def by_pyarrow(path):
    return in_frame(pyarrow.json.read_json(path).to_pandas())


def in_frame(lines):
    def join():
        accepts = lines[lines.event == "accept"].dropna(subset="conn")
        connections = lines[lines.event == "connection"]
        joined = accepts.merge(connections, on="conn")
        names = joined.comm_x.dropna()
        waited = joined.accept_queue_ns_y.sum()
        return len(joined), waited, max(names) if len(names) else None

    counts = lines.groupby("event")[["event", "ts", "mono_ns"]].count()
    times = pandas.to_datetime(lines.ts, format="ISO8601")
    return found(counts.itertuples(name=None), join, times.notna().all())


LIBRARIES = {
    "duckdb": by_duckdb,
    "clickhouse": by_clickhouse,
    "pandas": by_pandas,
    "pyarrow": by_pyarrow,
}

paths = sys.argv[1:]
json.dump({path: {name: load(path) for name, load in LIBRARIES.items()} for path in paths}, sys.stdout)
