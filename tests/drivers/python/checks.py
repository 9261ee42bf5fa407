"""Runs the checks of one suite and prints `ok NAME`, `not ok NAME: why` and `note NAME: what` lines.

DATABASE_URL is what is tested, DIRECT_URL is PostgreSQL itself, REPLICA_URL its replica if there is one: a read
may run there. POOL_SIZE is set when a pooler is in between: then a check may ask that servers were really shared.
"""

import asyncio
import faulthandler
import inspect
import os
import sys
import time
import traceback

URL = os.environ["DATABASE_URL"]
DIRECT = os.environ["DIRECT_URL"]
NODES = [url for url in (DIRECT, os.environ.get("REPLICA_URL")) if url]
# What changes behind the back of the pooler (by DIRECT) is seen at once with this; PostgreSQL takes it for any setting.
STRICT = "set pooler.read_consistency = 'strict'"
POOL_SIZE = int(os.environ.get("POOL_SIZE", "0"))
CLIENTS = 50
ROUNDS = 20
CHECK_SECONDS = 60

_checks = []


def check(function):
    _checks.append(function)
    return function


def note(name, what):
    print(f"note {name}: {what}", flush=True)


def servers_were_shared(pids):
    """The transactions of many clients met several servers, and no more than the pool has."""
    if POOL_SIZE:
        assert 1 < len(set(pids)) <= POOL_SIZE, f"{len(set(pids))} servers for a pool of {POOL_SIZE}"


def wait_for_exit(pid):
    """Waits until a server process is gone (it runs on this machine): its socket is closed then."""
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}"):
        assert time.monotonic() < deadline, f"server {pid} does not exit"
        time.sleep(0.005)


def marker(client, turn):
    """A text that only this client sends, of a length that varies from a few bytes to some KB."""
    return f"client {client} turn {turn} " + "x" * (client * turn * 37 % 9000)


async def _within_time(coroutine):
    return await asyncio.wait_for(coroutine, CHECK_SECONDS)


def main():
    only = sys.argv[1:]
    failed = 0
    for function in _checks:
        name = function.__name__
        if only and name not in only:
            continue
        # A hang that asyncio cannot break (or a blocking driver's) ends the suite with a traceback.
        faulthandler.dump_traceback_later(CHECK_SECONDS + 10, exit=True)
        try:
            if inspect.iscoroutinefunction(function):
                asyncio.run(_within_time(function()))
            else:
                function()
            print(f"ok {name}", flush=True)
        except Exception as error:
            failed += 1
            print(f"not ok {name}: {type(error).__name__}: {error}"[:2000].replace("\n", " "), flush=True)
            traceback.print_exc()
        faulthandler.cancel_dump_traceback_later()
    sys.exit(1 if failed else 0)
