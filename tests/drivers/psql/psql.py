"""psql itself, run as a program and as if at a terminal: \\copy, FETCH_COUNT, \\watch, \\gexec, scripts, Ctrl-C."""

import os
import pathlib
import pty
import signal
import subprocess
import sys
import tempfile
import time
import tty

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "python"))
from checks import DIRECT, NODES, URL, check, main, note, servers_were_shared, wait_for_exit  # noqa: E402

COMMAND = ["psql", "-X", "-q", "-A", "-t", "-v", "VERBOSITY=sqlstate"]


def psql(script, url=URL, status=0, **environment):
    """Runs a script and returns (output, errors)."""
    done = subprocess.run([*COMMAND, url], input=script, text=True, capture_output=True, timeout=60,
                          env={**os.environ, **environment})
    assert done.returncode == status, f"exit code {done.returncode}: {done.stderr}"
    return done.stdout, done.stderr


def lines(script, **options):
    output, errors = psql(script, **options)
    wrong = [line for line in errors.splitlines() if not line.startswith("NOTICE:")]  # of "drop … if exists"
    assert not wrong, errors
    return output.splitlines()


class Terminal:
    """psql at a terminal: only there does Ctrl-C end a query and not the whole script."""

    def __init__(self):
        self._terminal, theirs = pty.openpty()
        tty.setraw(theirs)  # no echo, lines end as psql ends them
        prompts = ["-v", "PROMPT1=", "-v", "PROMPT2=", "-v", "PROMPT3=", "-P", "pager=off"]
        self._process = subprocess.Popen([*COMMAND, "--no-readline", *prompts, URL], stdin=theirs, stdout=theirs,
                                         stderr=subprocess.PIPE, text=True)
        os.close(theirs)
        self._output = open(self._terminal, closefd=False)

    def type(self, text):
        os.write(self._terminal, text.encode())

    def line(self):
        return self._output.readline()

    def interrupt(self):
        self._process.send_signal(signal.SIGINT)

    def interrupt_when_running(self, query):
        """`query`: its first words, as a regular expression that does not match itself."""
        running = f"select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query ~ '^{query}'"
        deadline = time.monotonic() + 20
        while ["1"] not in [lines(running, url=url) for url in NODES]:
            assert time.monotonic() < deadline, f"never ran: {query}"
        self.interrupt()

    def leave(self):
        """Returns the errors of the session."""
        self.type("\\q\n")
        _, errors = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, self._process.returncode
        os.close(self._terminal)
        return errors


def client_version():
    return int(subprocess.run(["psql", "--version"], text=True, capture_output=True).stdout.split()[2].split(".")[0])


@check
def wrong_password_is_refused():
    _, errors = psql("select 1", url=URL.replace(":secret@", ":wrong@"), status=2)
    assert "password authentication failed" in errors, errors


@check
def queries_and_errors():
    output, errors = psql("select 1;\nselect 1/0;\nselect 1 frm x;\nbegin;\nselect 1/0;\nselect 1;\nrollback;\nselect 'ünï ☃';\n")
    assert output.splitlines() == ["1", "ünï ☃"], output
    states = [line.split(":")[-1].strip() for line in errors.splitlines()]
    assert states == ["22012", "42601", "22012", "25P02"], states


@check
def several_statements_in_one_message():
    assert lines(r"select 1\; select 2\; select 3;") == ["1", "2", "3"]
    output, errors = psql(
        "drop table if exists psql_multi;\ncreate table psql_multi (a int);\n"
        r"insert into psql_multi values (1)\; select 1/0\; insert into psql_multi values (2);"
        "\nselect count(*) from psql_multi;\n")
    assert output == "0\n" and "22012" in errors, (output, errors)


@check
def copy_in_and_out():
    with tempfile.TemporaryDirectory() as directory:
        source, target = pathlib.Path(directory, "in"), pathlib.Path(directory, "out")
        text = "".join(f"{n}\tline {n} ☃\n" for n in range(50000))
        source.write_text(text)
        script = f"""drop table if exists psql_copy;
            create table psql_copy (id int primary key, body text);
            \\copy psql_copy from '{source}'
            \\copy (select * from psql_copy order by id) to '{target}'
            """
        assert lines(script) == []
        assert target.read_text() == text
        _, errors = psql(f"\\copy psql_copy from '{source}'\n")
        assert "23505" in errors, errors
        assert lines("copy psql_copy from stdin;\n60000\tx\n\\.\nselect count(*) from psql_copy;\n") == ["50001"]
        output = lines("copy (select 1) to stdout;\nselect 'after';\n")
        assert output == ["1", "after"], output


@check
def fetch_count_reads_through_a_cursor():
    got = lines("\\set FETCH_COUNT 7\nselect n from generate_series(1, 1000) n;\nselect 'after';\n")
    assert got == [str(n) for n in range(1, 1001)] + ["after"]
    output, errors = psql("\\set FETCH_COUNT 7\nselect 100 / (50 - n) from generate_series(1, 100) n;\nselect 'after';\n")
    assert "22012" in errors and output.endswith("after\n"), (output, errors)


@check
def cursors_in_a_transaction():
    got = lines("begin;\ndeclare c scroll cursor for select n from generate_series(1, 10) n;\nfetch 2 from c;\n"
                "move 3 in c;\nfetch c;\nfetch prior from c;\nclose c;\ncommit;\n")
    assert got == ["1", "2", "6", "5"], got


@check
def bind_gexec_gset_and_gdesc():
    script = "select 'select ' || n from generate_series(1, 3) n \\gexec\nselect 5 as five \\gset\nselect :five + 1;\n" \
             "select 1 as a, 'x'::text as b \\gdesc\n"
    assert lines(script) == ["1", "2", "3", "6", "a|integer", "b|text"]
    if client_version() >= 16:
        assert lines("select $1::int + $2::int \\bind 40 2 \\g\nselect $1 || 'x' \\bind y \\g\n") == ["42", "yx"]
    else:
        note("bind", "needs psql 16")


@check
def sql_prepare_in_a_transaction():
    got = lines("begin;\nprepare p (int) as select $1 + 1;\nexecute p(1);\nexecute p(2);\ndeallocate p;\ncommit;\n")
    assert got == ["2", "3"], got


@check
def watch_repeats_the_query_until_interrupted():
    terminal = Terminal()
    terminal.type("select 'tick', pg_backend_pid() \\watch 0.02\n")
    seen = 0
    while seen < 20:
        seen += terminal.line().startswith("tick|")
    terminal.interrupt()
    terminal.type("select 'after';\n")
    while (line := terminal.line()) != "after\n":
        assert line == "\n" or line.startswith("tick|") or " (every " in line, line
    terminal.leave()


@check
def interrupt_cancels_the_query_only():
    bystander = subprocess.Popen([*COMMAND, URL, "-c", "select 'bystander', pg_sleep(2)"],
                                 stdout=subprocess.PIPE, text=True)
    terminal = Terminal()
    for word in ("first", "second"):
        terminal.type(f"select pg_sleep(30), '{word}';\nselect 'after {word}';\n")
        terminal.interrupt_when_running(f"select pg_sleep.30., .{word}")
        assert terminal.line() == f"after {word}\n"
    errors = terminal.leave()
    assert errors.count("57014") == 2, errors
    assert bystander.communicate(timeout=20)[0] == "bystander|\n" and bystander.returncode == 0


@check
def interrupt_fails_the_transaction_and_ends_a_copy():
    lines("drop table if exists psql_never;\ncreate table psql_never (a text);")
    terminal = Terminal()
    terminal.type("begin;\ninsert into psql_never values ('x');\nselect pg_sleep(30), 'in transaction';\n"
                  "select 1;\nrollback;\nselect 'clean';\n")
    terminal.interrupt_when_running("select pg_sleep.30., .in trans")
    assert terminal.line() == "clean\n"
    terminal.type("copy (select pg_sleep(0.01), n from generate_series(1, 10000) n) to stdout;\nselect 'also clean';\n")
    assert terminal.line() == "\t1\n"
    terminal.interrupt()
    while (line := terminal.line()) != "also clean\n":
        assert line.startswith("\t"), line
    errors = terminal.leave()
    assert errors.count("57014") == 2 and errors.count("25P02") == 1, errors
    assert lines("select count(*) from psql_never;") == ["0"]


@check
def interrupted_script_ends():
    process = subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdin.write("begin;\nselect 'begun';\nselect pg_sleep(30);\nselect 'never';\n")
    process.stdin.flush()
    assert process.stdout.readline() == "begun\n"
    process.stdin.close()
    deadline = time.monotonic() + 20
    while lines("select count(*) from pg_stat_activity where wait_event = 'PgSleep' and query = 'select pg_sleep(30);'",
                url=DIRECT) != ["1"]:
        assert time.monotonic() < deadline, "never ran"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) != 0
    assert "57014" in process.stderr.read() and process.stdout.read() == ""
    assert lines("select 'works';") == ["works"]


@check
def single_transaction_scripts_are_all_or_nothing():
    with tempfile.TemporaryDirectory() as directory:
        script = pathlib.Path(directory, "script.sql")

        def run(text, *options):
            script.write_text(text)
            done = subprocess.run([*COMMAND, "--single-transaction", *options, "-f", script, URL], text=True,
                                  capture_output=True, timeout=60)
            return done.returncode, done.stdout

        table = "drop table if exists psql_single;\ncreate table psql_single (server int);\n"
        insert = "insert into psql_single select pg_backend_pid();\n"
        assert run(table + insert * 20 + "copy psql_single from stdin;\n0\n\\.\n") == (0, "")
        assert lines("select count(*), count(distinct server) from psql_single;") == ["21|2"]
        assert run(insert + "select 1/0;\n" + insert, "-v", "ON_ERROR_STOP=1")[0] == 3
        assert run(insert + "select 1/0;\n" + insert)[0] == 0  # goes on in the failed transaction
        assert lines("select count(*) from psql_single;") == ["21"]
        assert run("select 'own';\nset local work_mem = '77MB';\nshow work_mem;\n") == (0, "own\n77MB\n")
        assert lines("show work_mem;") == lines("show work_mem;", url=DIRECT)


@check
def notifications_are_shown():
    got = lines("listen psql_news;\nnotify psql_news, 'mine';\nselect 1;\nunlisten psql_news;\n"
                "notify psql_news, 'late';\nselect 2;\n")
    news = [line for line in got if line.startswith("Asynchronous notification")]
    assert len(news) == 1 and '"psql_news" with payload "mine"' in news[0], got
    assert [line for line in got if line not in news] == ["1", "2"], got


@check
def many_programs_share_the_pool():
    script = "select pg_backend_pid();\nbegin;\nselect pg_backend_pid(), {0};\nselect pg_sleep(0.05), {0};\ncommit;\n"
    running = [subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(20)]
    for number, process in enumerate(running):
        process.stdin.write(script.format(number))
        process.stdin.close()
    pids = []
    for number, process in enumerate(running):
        _, in_transaction, slept = process.stdout.read().splitlines()
        pid, mine = in_transaction.split("|")
        assert mine == str(number) and slept == f"|{number}", (in_transaction, slept)
        assert process.wait(10) == 0
        pids.append(pid)
    servers_were_shared(pids)


@check
def meta_commands_work():
    lines("drop table if exists psql_meta; create table psql_meta (id int primary key, name text)")
    output = "\n".join(lines("\\t off\n\\d psql_meta\n\\dt psql_meta\n\\l app\n\\du app\n\\conninfo\n\\encoding\n"))
    for expected in ("psql_meta_pkey", "psql_meta|table", "UTF8"):
        assert expected in output, output


@check
def session_settings_follow_the_client():
    got = lines("set timezone to 'Asia/Tokyo';\n" + "select current_setting('timezone');\n" * 10 + "\\encoding latin1\n"
                "select length('x');\n", PGTZ="America/Lima")
    assert got == ["Asia/Tokyo"] * 10 + ["1"], got
    assert lines("show timezone", PGTZ="America/Lima") == ["America/Lima"]
    assert lines("show search_path", PGOPTIONS="-c geqo=off") == ['"$user", public']


@check
def lost_server_is_one_error():
    script = "begin;\nselect pg_backend_pid() as pid \\gset\n\\echo :pid\nselect pg_sleep(30);\nselect 'never';\n"
    process = subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write(script)
    process.stdin.flush()
    pid = int(process.stdout.readline())
    lines(f"select from pg_terminate_backend({pid})", url=DIRECT)
    wait_for_exit(pid)
    output, errors = process.communicate(timeout=20)
    assert "57P01" in errors, errors
    note("after_a_lost_server", f"exit code {process.returncode}, {errors.splitlines()[-1]!r}")
    assert "never" not in output or "25P02" not in errors
    assert lines("select 1") == ["1"]


if __name__ == "__main__":
    main()
