"""A second process of a suite, which reads what the first one has written: `reader(...)` calls `function(...)` there."""

import faulthandler
import multiprocessing
import os
import time
from contextlib import contextmanager

# Without a replica nothing can be late: a few show that the checks are right.
ITERATIONS = 100 if "REPLICA_URL" in os.environ else 10
# Longer than the replica is behind (run.sh): what was written is read there from then on.
CAUGHT_UP = 0.1


def _serve(pipe, functions):
    faulthandler.enable()
    while (call := pipe.recv()) is not None:
        name, arguments = call
        try:
            pipe.send((functions[name](*arguments), None))
        except Exception as error:
            pipe.send((None, f"{type(error).__name__}: {error}"))


@contextmanager
def reader(*functions):
    """A process of its own, with pools of its own; gives a function that calls one of `functions` there."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, {f.__name__: f for f in functions}), daemon=True)
    process.start()

    def call(function, *arguments):
        ours.send((function.__name__, arguments))
        assert ours.poll(30), f"no answer of {function.__name__}"
        result, error = ours.recv()
        assert error is None, f"in the reader: {error}"
        return result

    try:
        yield call
        ours.send(None)
        process.join(10)
    finally:
        process.kill()


def turns():
    """Numbers of iterations; now and then the replica has time to catch up first."""
    for turn in range(ITERATIONS):
        if turn % 10 == 9:
            time.sleep(CAUGHT_UP)
        yield turn
