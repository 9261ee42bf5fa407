"""Where other people's tests run: two clusters that are alike, one reached straight, the other through pooler, which hands
out another of a few servers for each transaction. And what is looked at when they are through."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

from processes import free_port, interrupt, newest_postgresql, unprivileged, wait_for_port


class Setting:
    def __init__(self, pooler, servers=3, postgres_options=()):
        self.pooler = pooler
        self.servers = servers
        self.bin = newest_postgresql()
        self.dir = tempfile.mkdtemp(prefix="pooler-suites-")
        os.chmod(self.dir, 0o777)
        self.processes, self.ports = [], []
        self.options = {"listen_addresses": "127.0.0.1", "unix_socket_directories": self.dir, "fsync": "off",
                        "max_prepared_transactions": "10", "autovacuum": "off"} | dict(postgres_options)

    def start(self, name, command, port):
        log = f"{self.dir}/{name}.log"
        with open(log, "w") as f:
            process = subprocess.Popen(unprivileged() + command, stdout=f, stderr=f, cwd="/")
        self.processes.append(process)
        self.ports.append(port)
        try:
            wait_for_port(port, process, 30)
        except RuntimeError as error:
            with open(log, errors="replace") as f:
                sys.exit(f"{name} {error}: {f.read()[-1000:]}")

    def cluster(self, name, *statements):
        """Starts one, and returns its port. Two that both cannot be used would be alike: the statements have to succeed."""
        port, data = free_port(), f"{self.dir}/{name}"
        initdb = [f"{self.bin}/initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]
        subprocess.run(unprivileged() + initdb, check=True, stdout=subprocess.DEVNULL, cwd="/")
        settings = [word for option in self.options.items() for word in ("-c", "=".join(option))]
        self.start(name, [f"{self.bin}/postgres", "-D", data, "-p", str(port), *settings], port)
        # It listens before it lets anyone in.
        while self.psql(port, "postgres", "-c", ""):
            time.sleep(0.02)
        self.run_sql(port, "postgres", *statements)
        return port

    def make_database(self, port, name):
        """As pg_regress does."""
        settings = ["lc_messages TO 'C'", "lc_monetary TO 'C'", "lc_numeric TO 'C'", "lc_time TO 'C'",
                    "bytea_output TO 'hex'", "timezone_abbreviations TO 'Default'"]
        self.run_sql(port, "postgres", f"CREATE DATABASE {name} TEMPLATE = template0",
                     *(f"ALTER DATABASE {name} SET {setting}" for setting in settings))

    def run_sql(self, port, database, *statements):
        for sql in statements:
            if printed := self.psql(port, database, "-c", sql):
                sys.exit(f"{sql}: {printed}")

    def in_front_of(self, server):
        self.pooler_port = free_port()
        binary = shutil.copy(self.pooler, self.dir)
        os.chmod(binary, 0o755)
        configuration = f"{self.dir}/pooler.toml"
        with open(configuration, "w") as f:
            f.write(f"""
[pooler]
listen_addr = "127.0.0.1"
listen_port = {self.pooler_port}
auth_type = "trust"
admin_users = ["admin"]
default_pool_size = {self.servers}
min_pool_size = {self.servers}
server_round_robin = true
client_placement = "rotate"
session_state = "{os.environ.get("SESSION_STATE", "suspected")}"

[databases."*"]
host = "127.0.0.1"
port = {server}

[users.postgres]
password = "none"

[users.admin]
password = "admin"
""")
        os.chmod(configuration, 0o600)
        if os.geteuid() == 0:
            shutil.chown(configuration, "postgres")
        self.start("pooler", [binary, "-c", configuration], self.pooler_port)
        return self.pooler_port

    def psql(self, port, database, *arguments, environment=None, timeout=300):
        command = [f"{self.bin}/psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-d", database, *arguments]
        return self.printed(command, environment or {"PATH": os.environ["PATH"], "PGUSER": "postgres"}, timeout)

    def printed(self, command, environment, timeout=300, stdin=None, directory=None):
        """What a program prints, errors and a failure too, but for ports."""
        with subprocess.Popen(command, env=environment, cwd=directory or self.dir, stdin=stdin or subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            try:
                output = process.communicate(timeout=timeout)[0]
                end = f"\nexit status {process.returncode}\n" if process.returncode else ""
            except subprocess.TimeoutExpired:
                process.kill()
                output, end = process.communicate()[0], "\nHANGS\n"
        return re.sub("|".join(map(str, self.ports)), "PORT", output.decode(errors="replace")) + end

    def left_behind(self, expected="(?!)"):
        """What is wrong when all clients have gone: servers that are not free, and what pooler complains of, or has found with
        SESSION_STATE=always and would have overlooked without."""
        console = {"PATH": os.environ["PATH"], "PGUSER": "admin", "PGPASSWORD": "admin"}
        for _ in range(100):
            servers = self.psql(self.pooler_port, "pooler", "-A", "-t", "-c", "SHOW SERVERS", environment=console).splitlines()
            wrong = [line for line in servers if not re.fullmatch(r"S\|.*\|(idle|used)\|.*\|", line)]
            if servers and not wrong:
                break
            time.sleep(0.1)
        else:
            wrong = wrong or ["no servers"]
        with open(f"{self.dir}/pooler.log", errors="replace") as f:
            return wrong + [line.rstrip() for line in f
                            if re.search(r"WARN|ERROR|panicked|which no text of it told", line) and not re.search(expected, line)]

    def stop(self):
        interrupt(self.processes)
        shutil.rmtree(self.dir, ignore_errors=True)
