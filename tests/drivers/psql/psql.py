"""psql itself, run as a program: \\copy, FETCH_COUNT, \\watch, \\bind, \\gexec, Ctrl-C."""

import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "python"))
from checks import DIRECT, URL, check, main, note, servers_were_shared, wait_for_exit  # noqa: E402

COMMAND = ["psql", "-X", "-q", "-A", "-t", "-v", "VERBOSITY=sqlstate"]


def psql(script, url=URL, status=0, **environment):
    """Runs a script and returns (output, errors)."""
    done = subprocess.run([*COMMAND, url], input=script, text=True, capture_output=True, timeout=60,
                          env={**os.environ, **environment})
    assert done.returncode == status, f"exit code {done.returncode}: {done.stderr}"
    return done.stdout, done.stderr


def lines(script, **options):
    output, errors = psql(script, **options)
    assert not errors, errors
    return output.splitlines()


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
def watch_repeats_the_query():
    process = subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    process.stdin.write("select 'tick', pg_backend_pid() \\watch 0.05\n")
    process.stdin.flush()
    seen = 0
    pids = []
    for line in process.stdout:
        if line.startswith("tick|"):
            seen += 1
            pids.append(line.strip().split("|")[1])
        if seen == 20:
            break
    process.send_signal(signal.SIGINT)
    process.stdin.write("select 'after';\n")
    process.stdin.close()
    assert "after\n" in process.stdout.read()
    assert process.wait(10) == 0


@check
def interrupt_cancels_the_query_only():
    environment = {**os.environ, "PGAPPNAME": "psql check"}
    process = subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True, env=environment)
    bystander = subprocess.Popen([*COMMAND, URL, "-c", "select 'bystander', pg_sleep(2)"],
                                 stdout=subprocess.PIPE, text=True)
    for word in ("first", "second"):
        process.stdin.write(f"select pg_sleep(30), '{word}';\nselect 'after {word}';\n")
        process.stdin.flush()
        running = "select count(*) from pg_stat_activity where state = 'active' and query ~ "
        deadline = time.monotonic() + 20
        while lines(f"{running} '^select pg_sleep.30., .{word}'", url=DIRECT) != ["1"]:
            assert time.monotonic() < deadline, f"the {word} query never ran"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == f"after {word}\n"
    _, errors = process.communicate("\\q\n", timeout=10)
    assert errors.count("57014") == 2, errors
    assert process.returncode == 0
    assert bystander.communicate(timeout=20)[0] == "bystander|\n" and bystander.returncode == 0


@check
def interrupt_in_copy_and_in_a_transaction():
    process = subprocess.Popen([*COMMAND, URL], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    process.stdin.write("begin;\nselect pg_sleep(30), 'in transaction';\nselect 1;\nrollback;\nselect 'clean';\n")
    process.stdin.flush()
    while lines("select count(*) from pg_stat_activity where state = 'active' and query ~ 'pg_sleep.*in trans[a]ction'",
                url=DIRECT) != ["1"]:
        pass
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=20)
    assert output == "clean\n" and "57014" in errors and "25P02" in errors, (output, errors)


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
    output = "\n".join(lines("\\d psql_meta\n\\dt psql_meta\n\\l app\n\\du app\n\\conninfo\n\\encoding\n"))
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
