"""What is measured: a throwaway PostgreSQL and the processes that may stand in front of it."""

import glob
import os
import shlex
import shutil
import subprocess
import tempfile
import time

from processes import free_port, interrupt, newest_postgresql, unprivileged, wait_for_port

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
USER = PASSWORD = DATABASE = "bench"
SERVERS = 20  # server connections that a pooler may use
MAX_CLIENTS = 10000


def processor_and_memory(pid):
    """CPU seconds and context switches so far of a process, threads that have ended included, and resident bytes."""
    cpu = time.clock_gettime((~pid << 3) | 2)  # the clock that clock_getcpuclockid(3) names
    switches = resident = 0
    for path in glob.glob(f"/proc/{pid}/task/*/status"):
        try:
            with open(path) as f:
                for line in f:
                    if "ctxt_switches" in line:
                        switches += int(line.split()[1])
                    elif line.startswith("VmRSS"):
                        resident = int(line.split()[1]) * 1024
        except OSError:
            pass  # a thread that ended meanwhile
    return cpu, switches, resident


class Cluster:
    """A PostgreSQL with pgbench's tables, in memory where possible, with SCRAM and TLS; and replicas if asked for."""

    def __init__(self, scale, replicas=0):
        base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self.dir = tempfile.mkdtemp(prefix="pooler-bench-", dir=base)
        self.scale = scale
        self.port = free_port()
        self.ports = [self.port]
        self.processes = []
        self.bin = newest_postgresql()
        os.chmod(self.dir, 0o755)
        try:
            self.start(replicas)
        except BaseException:
            self.stop()
            raise

    def start(self, replicas):
        self.certificate()
        if os.geteuid() == 0:
            for path in [self.dir, *glob.glob(self.dir + "/*")]:
                shutil.chown(path, "postgres", "postgres")
        self.data = self.dir + "/data"
        self.run(["initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N"])
        with open(self.data + "/pg_hba.conf", "w") as f:
            f.write("local all,replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        # Costs the server a little, and tells what else was asked.
        self.options = {"shared_preload_libraries": "pg_stat_statements"} if replicas else {}
        self.serve(self.data, self.port)
        self.psql("postgres", f"CREATE ROLE {USER} LOGIN SUPERUSER PASSWORD '{PASSWORD}'")
        self.psql("postgres", f"CREATE DATABASE {DATABASE} OWNER {USER}")
        where = ["-h", self.dir, "-p", str(self.port), "-U", USER, DATABASE]
        self.run(["pgbench", "-q", "-i", "-s", str(self.scale), *where])
        if replicas:
            self.psql(DATABASE, "CREATE EXTENSION pg_stat_statements")
            for table in range(10):
                self.psql(DATABASE, f"CREATE TABLE mixed_{table} AS SELECT id, 0 AS v FROM generate_series(1, 10000) id")
                self.psql(DATABASE, f"ALTER TABLE mixed_{table} ADD PRIMARY KEY (id), SET (fillfactor = 50)")
                self.psql(DATABASE, f"VACUUM (FULL, ANALYZE) mixed_{table}")
        self.psql(DATABASE, "CHECKPOINT")
        self.secret = self.psql("postgres", f"SELECT rolpassword FROM pg_authid WHERE rolname = '{USER}'")
        for number in range(1, replicas + 1):
            data = f"{self.dir}/data{number}"
            self.run(["pg_basebackup", "-D", data, "-h", self.dir, "-p", str(self.port), "-U", USER, "-R",
                      "-c", "fast", "-X", "stream"])
            self.ports.append(free_port())
            self.serve(data, self.ports[-1])

    def serve(self, data, port):
        """Starts a server on this directory."""
        options = {
            "listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": self.dir,
            "max_connections": 200, "fsync": "off", "synchronous_commit": "off", "full_page_writes": "off",
            "shared_buffers": "512MB", "max_wal_size": "4GB", "autovacuum": "off", "ssl": "on", "jit": "off",
            "ssl_cert_file": self.dir + "/server.crt", "ssl_key_file": self.dir + "/server.key", **self.options,
        }
        command = [self.bin + "/postgres", "-D", data]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with open(f"{data}.log", "wb") as log:
            process = subprocess.Popen(unprivileged() + command, stdout=log, stderr=log, cwd="/")
        self.processes.append(process)
        wait_for_port(port, process)

    def certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
             "-keyout", self.dir + "/server.key", "-out", self.dir + "/server.crt"],
            check=True, capture_output=True)
        os.chmod(self.dir + "/server.key", 0o600)

    def run(self, command):
        result = subprocess.run(
            unprivileged() + [f"{self.bin}/{command[0]}", *command[1:]], capture_output=True, text=True, cwd="/")
        if result.returncode:
            raise RuntimeError(f"{command[0]}: {result.stderr}")
        return result.stdout.strip()

    def psql(self, database, sql, port=None):
        where = ["-h", self.dir, "-p", str(port or self.port), "-U", "postgres", database]
        return self.run(["psql", "-XAtqc", sql, *where])

    def calls(self):
        """Statements that each node has run: those of the load, and others."""
        own = "query ~ 'pgbench_|mixed_'"
        count = (f"SELECT coalesce(sum(calls) FILTER (WHERE {own}), 0), coalesce(sum(calls) FILTER (WHERE NOT {own}), 0) "
                 "FROM pg_stat_statements WHERE query !~ 'pg_stat_statements'")
        return [tuple(int(n) for n in self.psql(DATABASE, count, port).split("|")) for port in self.ports]

    def stop(self):
        interrupt(self.processes)
        shutil.rmtree(self.dir, ignore_errors=True)


class Direct:
    """No pooler: the clients are PostgreSQL's."""

    name = "direct"
    pools = False
    process = None
    load = []

    def __init__(self, cluster):
        self.cluster = cluster
        self.port = cluster.port

    def version(self):
        return self.cluster.run(["postgres", "--version"])

    def start(self):
        pass

    def stop(self):
        pass


class Proxy:
    """A process of its own in front of the server; started anew for each measurement."""

    pools = True
    process = None
    load = []  # what the load driver is told besides

    def __init__(self, cluster):
        self.cluster = cluster
        self.port = free_port()
        self.dir = f"{cluster.dir}/{self.name}"
        os.mkdir(self.dir)
        for path, text in self.files().items():
            with open(f"{self.dir}/{path}", "w") as f:
                f.write(text)
        for path in ["server.crt", "server.key"]:
            shutil.copy(f"{cluster.dir}/{path}", self.dir)
        if os.geteuid() == 0:
            for path in [self.dir, *glob.glob(self.dir + "/*")]:
                shutil.chown(path, "postgres", "postgres")

    def start(self):
        with open(self.dir + "/log", "ab") as log:
            self.process = subprocess.Popen(
                unprivileged() + self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir)
        try:
            wait_for_port(self.port, self.process)
        except RuntimeError as error:
            self.stop()
            raise RuntimeError(f"{self.name} {error}: {self.log_tail()}") from None

    def log_tail(self):
        with open(self.dir + "/log", errors="replace") as f:
            return " | ".join(f.read().strip().splitlines()[-4:])

    def stop(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.process = None


class HAProxy(Proxy):
    """A relay that parses nothing: the floor. Each client has a server connection of its own.

    One thread unless HAPROXY_THREADS says otherwise, like PgBouncer; with two on two busy cores it pays more.
    """

    name = "haproxy"
    pools = False

    def files(self):
        return {"haproxy.cfg": f"""
global
    maxconn 1000
    nbthread {os.environ.get("HAPROXY_THREADS", "1")}
defaults
    mode tcp
    timeout connect 10s
    timeout client 1h
    timeout server 1h
listen bench
    bind 127.0.0.1:{self.port}
    server postgres 127.0.0.1:{self.cluster.port}
"""}

    def command(self):
        return ["haproxy", "-db", "-f", "haproxy.cfg"]

    def version(self):
        return subprocess.run(["haproxy", "-v"], capture_output=True, text=True).stdout.split("\n")[0].split(" 20")[0]


class PgBouncer(Proxy):
    name = "pgbouncer"

    def files(self):
        return {
            "users.txt": f'"{USER}" "{self.cluster.secret}"\n',
            "pgbouncer.ini": f"""
[databases]
{DATABASE} = host=127.0.0.1 port={self.cluster.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {self.port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = users.txt
pool_mode = transaction
max_prepared_statements = 200
default_pool_size = {SERVERS}
max_client_conn = {MAX_CLIENTS}
server_tls_sslmode = disable
client_tls_sslmode = allow
client_tls_cert_file = server.crt
client_tls_key_file = server.key
log_connections = 0
log_disconnections = 0
"""}

    def command(self):
        return shlex.split(os.environ["PGBOUNCER"]) + ["-q", "pgbouncer.ini"]

    def version(self):
        command = shlex.split(os.environ["PGBOUNCER"]) + ["--version"]
        return subprocess.run(command, capture_output=True, text=True).stdout.split("\n")[0]


def copy_of_pooler(path):
    """A copy: the build may lie where only its owner can read."""
    shutil.copy(os.environ.get("POOLER", ROOT + "/target/release/pooler"), path)
    os.chmod(path, 0o755)
    return path


class StandIn(PgBouncer):
    """pooler, called as pgbouncer with PgBouncer's own files."""

    name = "stand-in"

    def __init__(self, cluster):
        super().__init__(cluster)
        self.binary = copy_of_pooler(self.dir + "/pgbouncer")

    def command(self):
        return [self.binary, "-q", "pgbouncer.ini"]

    def version(self):
        return "pooler as pgbouncer"


class Pooler(Proxy):
    name = "pooler"
    servers = SERVERS

    def __init__(self, cluster):
        super().__init__(cluster)
        self.binary = copy_of_pooler(self.dir + "/pooler")

    def where(self):
        return f'host = "127.0.0.1"\nport = {self.cluster.port}'

    def files(self):
        return {"pooler.toml": f"""
[pooler]
listen_addr = "127.0.0.1"
listen_port = {self.port}
auth_type = "scram-sha-256"
default_pool_size = {self.servers}
max_client_conn = {MAX_CLIENTS}
admin_users = ["{USER}"]
server_tls_sslmode = "disable"
client_tls_sslmode = "allow"
client_tls_cert_file = "{self.dir}/server.crt"
client_tls_key_file = "{self.dir}/server.key"
log_connections = false
log_disconnections = false
{os.environ.get("POOLER_EXTRA", "")}

[databases.{DATABASE}]
{self.where()}

[users.{USER}]
password = "{self.cluster.secret}"
"""}

    def command(self):
        return [self.binary, "run", "-c", "pooler.toml"]

    def version(self):
        return subprocess.run([self.binary, "--version"], capture_output=True, text=True).stdout.strip() or "pooler"


class Host(Pooler):
    """Routing off: one server that is known to be the only one. Nobody waits for a server, so that these compare."""

    name = "host"
    servers = 40


class OneServer(Pooler):
    """Clients that take turns on one server."""

    name = "one-server"
    servers = 1


class Settings(OneServer):
    """The same, and each client has three settings of its own."""

    name = "settings"
    load = ["--settings"]


class OneNode(Host):
    """Routing on, with nowhere else to go: every request is looked at, by the same server as without."""

    name = "one-node"

    def where(self):
        return f'nodes = ["127.0.0.1:{self.cluster.port}"]'


class AllNodes(Host):
    """Routing on, to replicas."""

    name = "nodes"

    def where(self):
        nodes = ", ".join(f'"127.0.0.1:{port}"' for port in self.cluster.ports)
        return f"nodes = [{nodes}]"


class ToPrimary(AllNodes):
    """Nodes that are watched, and everything for the primary."""

    name = "to-primary"

    def where(self):
        return super().where() + '\nroute = "primary"'


ALL = {c.name: c for c in [Direct, HAProxy, PgBouncer, Pooler]}
SESSION = {c.name: c for c in [OneServer, Settings]}
STAND_IN = {StandIn.name: StandIn}
ROUTED = {c.name: c for c in [Host, OneNode, AllNodes, ToPrimary]}
