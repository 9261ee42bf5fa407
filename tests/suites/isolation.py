"""PostgreSQL's isolation tests (src/test/isolation). Called by scripts/suites.sh with pooler, the directory of isolationtester,
its tests, and session_of_pid.so.

isolationtester learns which sessions wait by their processes. Behind pooler a session has another process for each
transaction, and was told of one that is none: session_of_pid.so makes every session note which name
(application_name) goes with what it was told, and a function of the same name as PostgreSQL's looks for the process that has
this name now."""

import os
import re
import sys

from setting import Setting
from verdict import judge

CANCELED = "cancels what another session does by the process that this had in a transaction before"
KNOWN = {
    "async-notify": "open transactions of listening clients do not fill the queue: the connection that listens for all reads on",
    "detach-partition-concurrently-3": CANCELED,
    "detach-partition-concurrently-4": CANCELED,
    "stats": "pg_stat_force_next_flush() is for the server at hand: what others have counted is told when they are used again",
}
# More than sessions of any test, with the one that looks at the others.
SERVERS = 12

BLOCKED = """
CREATE TABLE public.isolation_sessions (pid int PRIMARY KEY, name text);
ALTER FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(int, int[]) RENAME TO pg_isolation_test_process_is_blocked;
CREATE FUNCTION pg_catalog.pg_isolation_test_session_is_blocked(told int, others int[]) RETURNS bool LANGUAGE sql AS $$
    SELECT coalesce(bool_or(pg_catalog.pg_isolation_test_process_is_blocked(a.pid, (
        SELECT array_agg(b.pid) FROM pg_stat_activity b WHERE b.application_name LIKE 'isolation/%')
    )), false)
    FROM pg_stat_activity a JOIN public.isolation_sessions s ON a.application_name = s.name
    WHERE s.pid = told AND a.state = 'active'
$$;
"""


class Isolation(Setting):
    def __init__(self, pooler, tester, source, preload):
        super().__init__(pooler, servers=SERVERS, postgres_options={"allow_system_table_mods": "on", "lc_messages": "C"})
        self.tester, self.source, self.preload = tester, source, preload

    def prepared_cluster(self, name):
        port = self.cluster(name)
        self.make_database(port, "isolation_regression")
        return port

    def outcome(self, test, port, behind_pooler):
        environment = {"PATH": os.environ["PATH"], "PGAPPNAME": f"isolation/{test}", "PGISOLATIONTIMEOUT": "20", "LC_MESSAGES": "C"}
        if behind_pooler:
            environment["LD_PRELOAD"] = self.preload
        with open(f"{self.source}/specs/{test}.spec") as spec:
            printed = self.printed([f"{self.tester}/isolationtester", f"host=127.0.0.1 port={port} user=postgres dbname=isolation_regression"],
                                environment, stdin=spec)
        # Whose process it was that notified: no session's that was told of its own, or the other way round.
        return re.sub(r'(: NOTIFY "\w+" with payload "[^"]*" from) .*', r"\1 someone", printed)


def tests_of(source, only):
    with open(f"{source}/isolation_schedule") as f:
        listed = [test for line in f if line.startswith("test:") for test in line.split()[1:]]
    if unknown := set(only) - set(listed):
        sys.exit(f"no such test: {', '.join(sorted(unknown))}")
    return only or listed


def main():
    pooler, tester, source, preload, *only = sys.argv[1:]
    tests = tests_of(source, only)
    setting = Isolation(pooler, tester, source, preload)
    direct, pooled = {}, {}
    try:
        at_postgresql, behind = (setting.prepared_cluster(name) for name in ("direct", "behind"))
        setting.run_sql(behind, "isolation_regression", *filter(None, BLOCKED.split(";\n")))
        through = setting.in_front_of(behind)
        for test in tests:
            direct[test], pooled[test] = setting.outcome(test, at_postgresql, False), setting.outcome(test, through, True)
        left = setting.left_behind()
    finally:
        setting.stop()
    known = {test: reason for test, reason in KNOWN.items() if test in tests}
    judge("isolation", direct, pooled, known, left, few=len(only) or 100)


if __name__ == "__main__":
    main()
