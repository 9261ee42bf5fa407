"""PostgreSQL's regression tests, through pooler and not. Called by scripts/regress.sh.

Two clusters that are alike: the files of the schedule run one after the other on both, on one straight, on the other
through pooler, which hands out another server for each transaction. What psql prints has to be the same, but for the
differences below. (Some tests need regress.so and fail alike on both.)
"""

import difflib
import os
import re
import shutil
import subprocess
import sys
import tempfile

from processes import free_port, interrupt, newest_postgresql, unprivileged, wait_for_port

# Lines that may differ at most, and why.
KNOWN = {
    "constraints": (20, "the default of a column is currval(), which means that of the server at hand"),
    "sequence": (60, "currval() and lastval() outside of the transaction of nextval() are those of the server at hand"),
    "guc": (10, "a function leaves a setting without a word of it in the text; a server may have loaded plpgsql before"),
    "temp": (2, "PREPARE TRANSACTION fails only where the server's temporary schema is yet to be made"),
    "largeobject": (8, "each server fills pages of its own, so that rows that nobody has sorted come in another order"),
}
# They show the process, the files or the counters of the server.
SKIPPED = {"tablespace", "sysviews", "stats"}
# Others build on these.
FIRST = {"test_setup", "create_index", "create_table", "create_misc", "copy"}


class Runner:
    def __init__(self, pooler, source):
        self.source = os.path.abspath(source)
        self.pooler = pooler
        self.bin = newest_postgresql()
        self.dir = tempfile.mkdtemp(prefix="pooler-regress-")
        os.chmod(self.dir, 0o777)
        os.mkdir(f"{self.dir}/results")
        os.chmod(f"{self.dir}/results", 0o777)
        self.processes = []
        # As pg_regress has it.
        self.environment = {
            "PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGUSER": "postgres", "PGTZ": "PST8PDT",
            "PGDATESTYLE": "Postgres, MDY", "PGOPTIONS": "-c intervalstyle=postgres_verbose", "LC_MESSAGES": "C",
            "PG_ABS_SRCDIR": self.source, "PG_LIBDIR": self.dir, "PG_DLSUFFIX": ".so",
        }

    def start(self, name, command, port):
        log = f"{self.dir}/{name}.log"
        with open(log, "w") as f:
            process = subprocess.Popen(unprivileged() + command, stdout=f, stderr=f, cwd="/")
        self.processes.append(process)
        try:
            wait_for_port(port, process, 30)
        except RuntimeError as error:
            with open(log, errors="replace") as f:
                sys.exit(f"{name} {error}: {f.read()[-1000:]}")

    def cluster(self, name):
        port, data = free_port(), f"{self.dir}/{name}"
        initdb = [f"{self.bin}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(unprivileged() + initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
        options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self.dir, "fsync": "off",
                   "max_prepared_transactions": "10", "autovacuum": "off"}
        settings = [word for option in options.items() for word in ("-c", "=".join(option))]
        self.start(name, [f"{self.bin}/postgres", "-D", data, "-p", str(port), *settings], port)
        self.prepare(port, "CREATE DATABASE regression TEMPLATE = template0")
        for setting in ["lc_messages TO 'C'", "lc_monetary TO 'C'", "lc_numeric TO 'C'", "lc_time TO 'C'",
                        "bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'"]:
            self.prepare(port, f"ALTER DATABASE regression SET {setting}")
        return port

    def prepare(self, port, sql):
        # Two clusters that both cannot be used would be alike.
        if printed := self.psql(port, "postgres", ["-c", sql]):
            sys.exit(f"{sql}: {printed}")

    def in_front_of(self, server):
        port = free_port()
        binary = shutil.copy(self.pooler, self.dir)
        os.chmod(binary, 0o755)
        with open(f"{self.dir}/pooler.toml", "w") as f:
            f.write(f"""
[pooler]
listen_addr = "127.0.0.1"
listen_port = {port}
auth_type = "trust"
default_pool_size = 3
min_pool_size = 3
server_round_robin = true
client_placement = "rotate"
session_state = "{os.environ.get("SESSION_STATE", "suspected")}"

[databases."*"]
host = "127.0.0.1"
port = {server}

[users.postgres]
password = "none"
""")
        self.start("pooler", [binary, "-c", f"{self.dir}/pooler.toml"], port)
        return port

    def psql(self, port, database, arguments):
        command = [f"{self.bin}/psql", "-X", "-q", "-p", str(port), "-d", database, *arguments]
        try:
            done = subprocess.run(command, env=self.environment, cwd=self.dir, timeout=300, stdin=subprocess.DEVNULL,
                                  stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired as hung:
            return (hung.stdout or b"").decode(errors="replace") + "\nHANGS\n"
        printed = done.stdout.decode(errors="replace").replace(str(port), "PORT")
        # How far psql has read when a notice comes is a matter of time.
        return re.sub(r"\.sql:\d+: ", ".sql: ", printed)

    def differences(self, test, ports):
        # Not asked for: tables' access methods and compression differ by build.
        arguments = ["-a", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-f", f"{self.source}/sql/{test}.sql"]
        direct, pooled = (self.psql(port, "regression", arguments) for port in ports)
        return list(difflib.unified_diff(direct.splitlines(), pooled.splitlines(), "direct", "pooled", lineterm="", n=3))

    def stop(self):
        interrupt(self.processes)
        shutil.rmtree(self.dir, ignore_errors=True)


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
        direct, behind = runner.cluster("direct"), runner.cluster("behind")
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
    finally:
        runner.stop()
    print(*known, f"{len(tests)} files, {len(wrong)} differ without a known reason", sep="\n")
    sys.exit(f"differ: {', '.join(wrong)}" if wrong else 0)


if __name__ == "__main__":
    main()
