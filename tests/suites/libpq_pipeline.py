"""PostgreSQL's tests of libpq's pipeline mode (src/test/modules/libpq_pipeline). Called by scripts/suites.sh with pooler, the
program and its directory. Also compares what libpq has sent and received, message by message."""

import os
import subprocess
import sys

from setting import Setting
from verdict import judge

KNOWN = {}


def main():
    pooler, program, source, *only = sys.argv[1:]
    listed = subprocess.run([program, "tests"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    tests = [test for test in listed if not only or test in only]
    setting = Setting(pooler)
    try:
        ports = setting.cluster("direct"), setting.in_front_of(setting.cluster("behind"))
        direct, pooled = ({test: outcome(setting, program, test, port, source) for test in tests} for port in ports)
        left = setting.left_behind()
    finally:
        setting.stop()
    judge("libpq_pipeline", direct, pooled, KNOWN, left, few=len(only) or 10)


def outcome(setting, program, test, port, source):
    """What a test prints, and its trace, where PostgreSQL compares it; of the others, which depend on how much sockets take, how
    they end."""
    expected, trace = f"{source}/traces/{test}.trace", f"{setting.dir}/trace"
    traced = ["-t", trace] if os.path.exists(expected) else []
    printed = setting.printed([program, "-r", "700", *traced, test, f"host=127.0.0.1 port={port} user=postgres dbname=postgres"], {})
    if not traced:
        return printed.splitlines()[-1]
    with open(expected) as f, open(trace) as g:
        messages = f.read(), g.read()
    return f"{printed}trace as in the source: {messages[0] == messages[1]}\n{messages[1]}"


if __name__ == "__main__":
    main()
