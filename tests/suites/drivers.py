"""Drivers' own tests: of psycopg2, asyncpg and node-postgres. Called by scripts/suites.sh with pooler, the suite, the directory
of its tests, and the program that runs them."""

import json
import os
import sys
import xml.etree.ElementTree as xml

from setting import Setting
from verdict import SOMETIMES, judge

PID = "the process that answers and notifies is that of the server at hand, not the one that the client was told of at login"
TERMINATED = "who ends a server by its process ends no client that has none at the time, or another one"
COUNTED = SOMETIMES + "counts sessions whose last text is its own: other servers too, unless they have been asked what was left"

# By reason.
KNOWN = {
    "psycopg2": {
        PID: ["test_async.AsyncTests.test_notify", "test_connection.TestConnectionInfo.test_backend_pid"] + [
            f"test_notify.NotifiesTests.test_{name}" for name in (
                "many_notifies", "notifies_received_on_commit", "notifies_received_on_execute", "notifies_received_on_poll",
                "notifies_received_on_reset", "notifies_received_on_rollback", "notifies_received_on_set_client_encoding",
                "notifies_received_on_set_session", "notify_attributes", "notify_payload")],
        TERMINATED: ["test_cursor.CursorTests.test_external_close_async"],
    },
    "asyncpg": {
        PID: ["test_listeners.TestListeners.test_listen_02",
              "test_listeners.TestListeners.test_listen_notletters"],
        TERMINATED: ["test_execute.TestExecuteScript.test_execute_script_interrupted_by_server",
                     "test_pool.TestPool.test_pool_min_size_restored_after_idle_connection_loss",
                     "test_pool.TestPool.test_pool_remote_close"],
        "counts prepared statements of the session: those of all clients are there":
            ["test_copy.TestCopyTo.test_copy_records_to_table_no_stmt_cache"],
        "drops a database, to which the pool still has connections":
            ["test_introspection.TestIntrospection.test_introspection_sticks_for_ps"],
        "what was prepared by Parse has another name for EXECUTE": ["test_prepare.TestPrepare.test_prepare_explicitly_named"],
        SOMETIMES + "more is on its way when the client learns of the error":
            ["test_execute.TestExecuteMany.test_executemany_server_failure_during_writes"],
        SOMETIMES + "fails at PostgreSQL too when the machine is busy": ["test_pool.TestPool.test_pool_config_persistence"],
    },
    "node-postgres": {
        TERMINATED: ["integration/connection-pool/error-tests.js", "integration/gh-issues/130-tests.js"],
        SOMETIMES + "5000 statements in 5 s, which is not done where servers are asked behind each of them":
            ["integration/gh-issues/1105-tests.js"],
        SOMETIMES + "cancels by the process of a former transaction, which may be that of the server that is to cancel it":
            ["pg-query-stream: error recovery should work after cancelling query"],
        SOMETIMES + "counts what happens in some seconds of a process that it starts":
            ["pg-pool: idle timeout keeps old behavior when allowExitOnIdle option is not set"],
        COUNTED: ["pg-pool: pool size of 1 can only send 1 query at a time"],
    },
}
# Tests that ran when this was written, and a few less.
FEWEST = {"psycopg2": 700, "asyncpg": 350, "node-postgres": 200}


class Suite(Setting):
    def __init__(self, pooler, name, tests, program):
        super().__init__(pooler, postgres_options={"max_connections": "200"})
        self.name, self.tests, self.program = name, tests, program

    def prepared_cluster(self, name):
        port = self.cluster(name, "CREATE DATABASE test")
        self.run_sql(port, "test", "CREATE EXTENSION hstore")
        return port

    def environment(self, port):
        return os.environ | {
            "PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": "test", "PGPASSWORD": "none",
            "PSYCOPG2_TESTDB": "test", "PGTESTNOSSL": "true", "TEST_TIMEOUT": "20000",
        }

    def python(self, port, only):
        """Outcomes by test."""
        report = f"{self.dir}/report.xml"
        chosen = ["-k", " or ".join(only)] if only else []
        said = self.printed([self.program, "-W", "ignore", "-m", "pytest", "-q", "--tb=native", "-p", "no:cacheprovider",
                             f"--rootdir={self.tests}", f"--junitxml={report}", *chosen, f"{self.tests}/tests"],
                            self.environment(port), timeout=900, directory=self.tests)
        if not os.path.exists(report):
            sys.exit(said[-3000:])
        outcomes = {}
        for case in xml.parse(report).iter("testcase"):
            told = [part for part in case if part.tag in ("failure", "error", "skipped")]
            name = f"{case.get('classname').removeprefix('tests.')}.{case.get('name')}"
            outcomes[name] = "\n".join(f"{part.tag}\n{part.get('message')}" for part in told) or "passed"
        os.remove(report)
        return outcomes

    def node(self, port, only):
        """The same; of node-postgres itself by file, as each is a program."""
        outcomes = {}
        environment = self.environment(port)
        pg = f"{self.tests}/node_modules/pg"
        self.printed([self.program, "script/create-test-tables.js"], environment, directory=pg)
        files = sorted(f"{where.removeprefix(pg + '/test/')}/{file}" for where, _, files in os.walk(f"{pg}/test/integration")
                       for file in files if file.endswith("-tests.js"))
        for file in files:
            if not only or any(part in file for part in only):
                said = self.printed([self.program, f"test/{file}"], environment, timeout=30, directory=pg)
                failed = "exit status" in said or "HANGS" in said
                outcomes[file] = f"failed\n{said[-2000:]}" if failed else "passed"
        for package, files in {"pg-pool": "test/*.js", "pg-cursor": "test/*.js", "pg-query-stream": "test/*.ts"}.items():
            if not only or any(part in package for part in only):
                report = f"{self.dir}/report.json"
                said = self.printed(
                    [self.program, "../mocha/bin/mocha.js", "--exit", "--timeout", "20000", "-r", "tsx", "-R", "json",
                     "--reporter-options", f"output={report}", files], environment, directory=f"{self.tests}/node_modules/{package}")
                if not os.path.exists(report):
                    sys.exit(said[-3000:])
                with open(report) as f:
                    results = json.load(f)
                os.remove(report)
                for kind in "passes", "failures", "pending":
                    outcomes |= {f"{package}: {test['fullTitle']}": f"{kind}\n{test['err'].get('message', '')}" for test in results[kind]}
        return outcomes


def main():
    pooler, name, tests, program, *only = sys.argv[1:]
    suite = Suite(pooler, name, tests, program)
    try:
        ports = suite.prepared_cluster("direct"), suite.in_front_of(suite.prepared_cluster("behind"))
        run = suite.node if name == "node-postgres" else suite.python
        direct, pooled = (run(port, only) for port in ports)
        left = suite.left_behind(expected="pooler error|server login failed|listens for clients has ended: terminating")
    finally:
        suite.stop()
    known = {test: reason for reason, tests in KNOWN[name].items() for test in tests if not only or test in direct}
    judge(name, direct, pooled, known, left, few=1 if only else FEWEST[name], by_first_line=True)


if __name__ == "__main__":
    main()
