"""Measures the contestants side by side and writes the report. Called by scripts/bench.sh."""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time

import contestants
import report
from contestants import DATABASE, PASSWORD, ROOT, USER

# name: (what it does, options of the load driver, only where connections are shared)
LOADS = {
    "simple": ("SELECT by key, simple protocol, 32 clients", "--mode simple --clients 32", False),
    "extended": ("the same, extended protocol", "--mode extended --clients 32", False),
    "prepared": ("the same, prepared statement", "--mode prepared --clients 32", False),
    "tpcb": ("TPC-B, 32 clients", "--mode tpcb --clients 32", False),
    "simple-1": ("SELECT by key, simple protocol, one client", "--mode simple --clients 1", False),
    "prepared-1": ("the same, prepared statement", "--mode prepared --clients 1", False),
    "tls-simple": ("simple, clients over TLS", "--mode simple --clients 32 --tls", False),
    "tls-prepared": ("prepared, clients over TLS", "--mode prepared --clients 32 --tls", False),
    "connect": ("a SCRAM login for each SELECT, 16 clients", "--mode connect --clients 16", False),
    "tls-connect": ("the same over TLS", "--mode connect --clients 16 --tls", False),
    "big-row": ("1 MB in one row, 8 clients", "--mode big-row --clients 8", False),
    "many-rows": ("1 MB in 10,000 rows, 8 clients", "--mode many-rows --clients 8", False),
    "clients-500": ("prepared, 500 clients on 20 servers", "--mode prepared --clients 500", True),
    "clients-5000": ("prepared, 5,000 clients on 20 servers", "--mode prepared --clients 5000", True),
}
# What routing costs: with `nodes`, compared with `host`. Not among those that are measured by default.
ROUTING = {
    "route-simple": ("SELECT by key, simple protocol, 32 clients", "--mode simple --clients 32", False),
    "route-extended": ("the same, extended protocol", "--mode extended --clients 32", False),
    "route-prepared": ("the same, prepared statement", "--mode prepared --clients 32", False),
    "route-mixed": ("9 SELECTs for each UPDATE on ten tables, simple protocol", "--mode mixed --clients 32", False),
    "route-mixed-p": ("the same, prepared statements", "--mode mixed-prepared --clients 32", False),
}
# What settings of clients cost: `settings` compared with `one-server`. Not among those measured by default either.
SESSION = {
    "settings-simple": ("SELECT by key, simple protocol, 8 clients on one server", "--mode simple --clients 8", False),
    "settings-prepared": ("the same, prepared statement", "--mode prepared --clients 8", False),
}
# name: (what it does, options of the load driver)
IDLE = {
    "idle": ("5,000 idle clients", "--clients 5000"),
    "tls-idle": ("5,000 idle clients over TLS", "--clients 5000 --tls"),
}
# pgbench itself, to check the driver against; its latencies come from its log.
PGBENCH = {
    "pgbench-simple": ("pgbench -S -M simple -c 32", "-S -M simple -c 32"),
    "pgbench-extended": ("pgbench -S -M extended -c 32", "-S -M extended -c 32"),
    "pgbench-prepared": ("pgbench -S -M prepared -c 32", "-S -M prepared -c 32"),
    "pgbench-tpcb": ("pgbench -c 32", "-c 32"),
    "pgbench-connect": ("pgbench -S -C -c 16", "-S -C -c 16"),
}
DEFAULT = [*LOADS, *IDLE, *PGBENCH]
LOADS.update(ROUTING)
LOADS.update(SESSION)
WORKLOADS = [*DEFAULT, *ROUTING, *SESSION]
EVERYBODY = {**contestants.ALL, **contestants.ROUTED, **contestants.SESSION, **contestants.STAND_IN}


class Bench:
    def __init__(self, options):
        self.options = options
        self.driver = self.find_driver()
        self.cluster = contestants.Cluster(options.scale, 2 if any(w in ROUTING for w in options.only) else 0)
        self.contestants = []
        try:
            self.contestants += [EVERYBODY[name](self.cluster) for name in options.against]
        except BaseException:
            self.cluster.stop()
            raise

    @staticmethod
    def find_driver():
        """The newest build of benches/load."""
        out = subprocess.run(
            ["cargo", "bench", "--quiet", "--no-run", "--bench", "load", "--message-format=json"],
            cwd=ROOT, capture_output=True, text=True, check=True).stdout
        messages = map(json.loads, out.splitlines())
        return next(m["executable"] for m in messages if m.get("executable") and m["target"]["name"] == "load")

    def drive(self, port, options, **popen):
        command = [self.driver, "--port", str(port), "--scale", str(self.options.scale), *options]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen)

    def load(self, contestant, options):
        timing = ["--seconds", str(self.options.seconds), "--warmup", str(self.options.warmup)]
        driver = self.drive(contestant.port, [*options.split(), *contestant.load, *timing])
        pid = contestant.process.pid if contestant.process else None
        samples, result = {}, None
        try:
            for line in driver.stdout:
                word = line.strip()
                if word in ("START", "END"):
                    samples[word] = (time.monotonic(), *(contestants.processor_and_memory(pid) if pid else (0, 0, 0)))
                elif word.startswith("{"):
                    result = json.loads(word)
        finally:
            driver.kill()
            driver.wait()
        if result is None or result["transactions"] == 0:
            raise RuntimeError(driver.stderr.read().strip() or f"nothing got through: {result}")
        result["tps"] = result["transactions"] / result["seconds"]
        if pid:
            # By rates: this process may wake a little after the driver spoke.
            begin, end = samples["START"], samples["END"]
            wall = end[0] - begin[0]
            result["cpu"] = (end[1] - begin[1]) / wall / result["tps"] * 1e6
            result["cores"] = (end[1] - begin[1]) / wall
            result["switches"] = (end[2] - begin[2]) / wall / result["tps"]
        return result

    def routed(self, contestant, options):
        """Also, of the whole run: the share of requests that replicas answered, and what the pooler asked by itself."""
        # Who logs in first makes the pooler look for the nodes.
        self.cluster.run(["psql", "-XAtqc", "SELECT 1", f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{contestant.port}/{DATABASE}"])
        time.sleep(self.options.found)
        before = self.cluster.calls()
        result = self.load(contestant, options)
        counts = [(own - o, other - p) for (own, other), (o, p) in zip(self.cluster.calls(), before)]
        asked = sum(own for own, _ in counts)
        result["on_replicas"] = sum(own for own, _ in counts[1:]) / max(asked, 1)
        result["own_queries"] = sum(other for _, other in counts) / max(asked, 1)
        return result

    def idle(self, contestant, options):
        """Resident memory per client, held and after they have left."""
        pid = contestant.process.pid
        warm = self.drive(contestant.port, ["--idle", "--mode", "prepared", "--clients", "50"], stdin=subprocess.PIPE)
        warm.communicate("")
        time.sleep(0.5)
        before = contestants.processor_and_memory(pid)[2]
        driver = self.drive(contestant.port, ["--idle", "--mode", "prepared", *options.split()], stdin=subprocess.PIPE)
        try:
            ready = driver.stdout.readline().strip()
            if ready != "READY":
                raise RuntimeError(driver.stderr.read().strip())
            clients = int(re.search(r"--clients (\d+)", options)[1])
            time.sleep(1)
            cpu, _, held = contestants.processor_and_memory(pid)
            time.sleep(2)
            burnt = contestants.processor_and_memory(pid)[0] - cpu
            driver.communicate("", timeout=60)
        finally:
            driver.kill()
            driver.wait()
        time.sleep(self.options.settle)
        after = contestants.processor_and_memory(pid)[2]
        return {"before": before, "held": held, "after": after, "per_client": (held - before) / clients,
                "kept": (after - before) / max(held - before, 1), "idle_cores": burnt / 2}

    def pgbench(self, contestant, options):
        prefix = f"{self.cluster.dir}/log"
        command = [f"{self.cluster.bin}/pgbench", *options.split(), "-j", "2", "-n", "-l", f"--log-prefix={prefix}",
                   "-T", str(max(1, round(self.options.seconds))), "-h", "127.0.0.1", "-p", str(contestant.port),
                   "-U", USER, DATABASE]
        pid = contestant.process.pid if contestant.process else None
        begin = contestants.processor_and_memory(pid) if pid else None
        done = subprocess.run(command, env={**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"},
                              capture_output=True, text=True, cwd="/")
        latencies = []
        for name in os.listdir(self.cluster.dir):
            if name.startswith("log."):
                with open(f"{self.cluster.dir}/{name}") as f:
                    latencies += (int(line.split()[2]) for line in f)
                os.unlink(f"{self.cluster.dir}/{name}")
        if done.returncode or not latencies:
            raise RuntimeError(done.stderr.strip()[-300:])
        latencies.sort()
        at = lambda share: latencies[min(len(latencies) - 1, int(len(latencies) * share))]
        result = {"transactions": len(latencies), "tps": float(re.search(r"tps = ([\d.]+)", done.stdout)[1]),
                  "p50": at(0.5), "p99": at(0.99), "p999": at(0.999), "errors": 0}
        if pid:
            end = contestants.processor_and_memory(pid)
            result["cpu"] = (end[0] - begin[0]) / len(latencies) * 1e6
            result["switches"] = (end[1] - begin[1]) / len(latencies)
        return result

    def once(self, workload, contestant):
        contestant.start()
        try:
            if workload in ROUTING:
                return self.routed(contestant, LOADS[workload][1])
            if workload in LOADS:
                return self.load(contestant, LOADS[workload][1])
            if workload in IDLE:
                return self.idle(contestant, IDLE[workload][1])
            return self.pgbench(contestant, PGBENCH[workload][1])
        finally:
            contestant.stop()

    def applies(self, workload, contestant):
        if workload in IDLE or (workload in LOADS and LOADS[workload][2]):
            return contestant.pools
        return True

    def rounds(self, workload):
        """Results by contestant; who begins changes with each round."""
        entered = [c for c in self.contestants if self.applies(workload, c)]
        results = {c.name: [] for c in entered}
        for number in range(1 if workload in IDLE else self.options.rounds):
            shift = number % max(len(entered), 1)
            for contestant in entered[shift:] + entered[:shift]:
                try:
                    result = self.once(workload, contestant)
                except (RuntimeError, OSError, subprocess.SubprocessError) as error:
                    result = {"failed": str(error)}
                results[contestant.name].append(result)
                print(f"{workload:16} round {number + 1} {contestant.name:10} {report.brief(result)}",
                      file=sys.stderr, flush=True)
        return results


def parse_options():
    parser = argparse.ArgumentParser(prog="scripts/bench.sh", description="Side by side, in interleaved rounds.")
    names = lambda text: [name for name in text.split(",") if name]
    parser.add_argument("--quick", action="store_true", help="one short round: about three minutes")
    parser.add_argument("--rounds", type=int, help="how often each is measured (3)")
    parser.add_argument("--seconds", type=float, help="measured time of each run (5)")
    parser.add_argument("--warmup", type=float, help="time under load before that (1)")
    parser.add_argument("--only", type=names, default=None, help="workloads, separated by commas; `routing`, `settings`: those of a kind")
    parser.add_argument("--against", type=names, default=None, help="contestants (all)")
    parser.add_argument("--scale", type=int, default=10, help="pgbench's scale factor (10)")
    parser.add_argument("--settle", type=float, default=5, help="seconds until memory must be back (5)")
    parser.add_argument("--found", type=float, default=2, help="seconds until nodes must be known (2)")
    parser.add_argument("--out", default=ROOT + "/bench-results", help="where the report goes")
    parser.add_argument("--list", action="store_true", help="print the workloads")
    options = parser.parse_args()
    options.rounds = options.rounds or (1 if options.quick else 3)
    options.seconds = options.seconds or (1.5 if options.quick else 5)
    if options.warmup is None:
        options.warmup = 0.5 if options.quick else 1
    if options.quick:
        options.settle = min(options.settle, 2)
    default = [w for w in DEFAULT if not (options.quick and w in PGBENCH)]
    options.only = options.only or default
    groups = {"routing": (ROUTING, contestants.ROUTED), "settings": (SESSION, contestants.SESSION)}
    options.only = [w for name in options.only for w in (groups[name][0] if name in groups else [name])]
    chosen = [members for workloads, members in groups.values() if any(w in workloads for w in options.only)]
    options.against = options.against or list(chosen[0] if chosen else contestants.ALL)
    for chosen, known in [(options.only, WORKLOADS), (options.against, EVERYBODY)]:
        for name in chosen:
            if name not in known:
                parser.error(f"{name}: one of {', '.join(known)}")
    return options


def main():
    options = parse_options()
    titles = {name: entry[0] for group in (LOADS, IDLE, PGBENCH) for name, entry in group.items()}
    if options.list:
        for name in WORKLOADS:
            print(f"{name:16} {titles[name]}")
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    bench = None
    busy = os.getloadavg()[0]
    if busy > 1:
        print("this machine is busy with something else: ratios stay useful, numbers do not", file=sys.stderr)
    try:
        print("starting PostgreSQL", file=sys.stderr)
        bench = Bench(options)
        versions = {c.name: c.version() for c in bench.contestants}
        results = {}
        for workload in options.only:
            results[workload] = bench.rounds(workload)
    except KeyboardInterrupt:
        sys.exit("interrupted")
    finally:
        if bench:
            for contestant in bench.contestants:
                contestant.stop()
            bench.cluster.stop()
    described = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False)
    meta = {"versions": versions, "commit": described.stdout.strip(), "rounds": options.rounds, "seconds": options.seconds, "cores": os.cpu_count(),
            "titles": titles, "load": busy, "contestants": options.against, "time": time.strftime("%Y-%m-%d %H:%M")}
    print(report.write(options.out, meta, results))
    if any("failed" in r for by_name in results.values() for rounds in by_name.values() for r in rounds):
        sys.exit("some rounds failed, see the lines with !")


if __name__ == "__main__":
    main()
