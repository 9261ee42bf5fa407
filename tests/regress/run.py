"""PostgreSQL's regression tests, through pooler and not. Called by scripts/regress.sh.

Two clusters that are alike: the files of the schedule run one after the other on both, on one straight, on the other
through pooler, which hands out another server for each transaction. What psql prints has to be the same, but for the
differences below. (Some tests need regress.so and fail alike on both.)
"""

import difflib
import os
import re
import sys

from setting import Setting

# Lines that may differ at most, and why.
CURRVAL = "currval() and lastval() are an error with a hint until it is known that clients of this name ask for them"
KNOWN = {
    "constraints": (20, CURRVAL),
    "sequence": (60, CURRVAL),
    "guc": (10, "a function leaves a setting without a word of it in the text; a server may have loaded plpgsql before"),
    "create_index": (27, "any snapshot that is held while tables are vacuumed (the look at the catalog, now and then) keeps index-only scans away"),
    "temp": (2, "PREPARE TRANSACTION fails only where the server's temporary schema is yet to be made"),
    "largeobject": (8, "each server fills pages of its own, so that rows that nobody has sorted come in another order"),
}
# They show the process, the files or the counters of the server.
SKIPPED = {"tablespace", "sysviews", "stats"}
# Others build on these.
FIRST = {"test_setup", "create_index", "create_table", "create_misc", "copy"}


class Runner(Setting):
    def __init__(self, pooler, source):
        super().__init__(pooler)
        self.source = os.path.abspath(source)
        os.mkdir(f"{self.dir}/results")
        os.chmod(f"{self.dir}/results", 0o777)
        # As pg_regress has it.
        self.environment = {
            "PATH": os.environ["PATH"], "PGUSER": "postgres", "PGTZ": "PST8PDT",
            "PGDATESTYLE": "Postgres, MDY", "PGOPTIONS": "-c intervalstyle=postgres_verbose", "LC_MESSAGES": "C",
            "PG_ABS_SRCDIR": self.source, "PG_LIBDIR": self.dir, "PG_DLSUFFIX": ".so",
        }

    def prepared_cluster(self, name):
        port = self.cluster(name)
        self.make_database(port, "regression")
        return port

    def differences(self, test, ports):
        # Not asked for: tables' access methods and compression differ by build.
        arguments = ["-a", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-f", f"{self.source}/sql/{test}.sql"]
        # How far psql has read when a notice comes is a matter of time.
        direct, pooled = (re.sub(r"\.sql:\d+: ", ".sql: ", self.psql(port, "regression", *arguments, environment=self.environment))
                          for port in ports)
        return list(difflib.unified_diff(direct.splitlines(), pooled.splitlines(), "direct", "pooled", lineterm="", n=3))


def tests_of(source, only):
    with open(f"{source}/parallel_schedule") as f:
        listed = [test for line in f if line.startswith("test:") for test in line.split()[1:]]
    if unknown := set(only) - set(listed):
        sys.exit(f"no such test: {', '.join(sorted(unknown))}")
    return [test for test in listed if (test in FIRST or test in only if only else test not in SKIPPED)]


def main():
    pooler, source, *only = sys.argv[1:]
    tests = tests_of(source, only)
    runner = Runner(pooler, source)
    wrong, known = [], []
    try:
        direct, behind = runner.prepared_cluster("direct"), runner.prepared_cluster("behind")
        ports = direct, runner.in_front_of(behind)
        for test in tests:
            found = runner.differences(test, ports)
            lines = sum(line[0] in "+-" for line in found[2:])
            most, reason = KNOWN.get(test, (0, ""))
            if lines > most:
                wrong.append(test)
                print(f"{test}: {lines} lines differ", *found, sep="\n", flush=True)
            elif lines:
                known.append(f"{test}: {lines} lines differ: {reason}")
        # Functions leave settings.
        left = runner.left_behind(expected="which no text of it told")
    finally:
        runner.stop()
    print(*known, f"{len(tests)} files, {len(wrong)} differ without a known reason", sep="\n")
    if left:
        print("left behind:", *left, sep="\n")
    sys.exit(f"differ: {', '.join(wrong)}" if wrong else bool(left))


if __name__ == "__main__":
    main()
