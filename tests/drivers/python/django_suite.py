"""Django 5 on psycopg 3: what one process has committed, another reads at once, in and out of transactions. Connections are
persistent, and cursors at the server are in use, which Django advises against behind poolers."""

import threading
import time
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import close_old_connections, connection, connections, models, transaction

from checks import URL, check, main, servers_were_shared
from pairs import CAUGHT_UP, ITERATIONS, reader, turns

_url = urlsplit(URL)


def _database(**options):
    return {
        "ENGINE": "django.db.backends.postgresql", "NAME": _url.path[1:], "USER": _url.username,
        "PASSWORD": _url.password, "HOST": _url.hostname, "PORT": _url.port,
        "CONN_MAX_AGE": None, "OPTIONS": options,
    }


settings.configure(
    INSTALLED_APPS=["shop"],
    USE_TZ=True,
    DATABASES={
        "default": _database(),
        # Django prepares no statements unless it is told to.
        "prepared": _database(prepare_threshold=1, server_side_binding=True),
        "pooled": _database(pool={"min_size": 2, "max_size": 5}) | {"CONN_MAX_AGE": 0},
    },
)
django.setup()

from shop.models import Article, Author, Tag  # noqa: E402

# --- What the second process does ----------------------------------------------------------------------


def article(number):
    """As a detail view does, without a transaction: lazy loads of the author and the tags."""
    found = Article.objects.filter(pk=number).first()
    return found and (found.title, found.hits, found.author.name, sorted(tag.name for tag in found.tags.all()))


def article_in_request(number):
    """The same with ATOMIC_REQUESTS."""
    with transaction.atomic():
        return article(number)


def tags():
    return list(Tag.objects.order_by("name").values_list("name", flat=True))


def page(author):
    """A list view: a count for the paginator, and a page with its related objects."""
    query = Article.objects.filter(author=author).select_related("author").prefetch_related("tags").order_by("-pk")
    return query.count(), [(found.pk, found.author.name, len(found.tags.all())) for found in query[:5]]


def exists(title):
    return Article.objects.filter(title=title).exists()


def hit(number, times):
    """Counts up under a row lock, as carefully as Django's documentation tells."""
    for _ in range(times):
        with transaction.atomic():
            found = Article.objects.select_for_update().get(pk=number)
            found.hits += 1
            found.save(update_fields=["hits"])
    return times


# --- Checks --------------------------------------------------------------------------------------------


def written_is_read(get):
    with reader(article, article_in_request, tags) as there:
        for turn in turns():
            if turn % 2:
                with transaction.atomic():
                    new = Article.objects.create(title=f"title {turn}", author_id=1)
                    new.tags.add(1, 2)
            else:
                new = Article.objects.create(title=f"title {turn}", author_id=1)
                new.tags.set([1, 2])
            got = there(get, new.pk)
            assert got == (f"title {turn}", 0, "author", ["tag 0", "tag 1"]), f"turn {turn}: {got}"
            assert len(there(tags)) == 10
            Article.objects.filter(pk=new.pk).update(hits=models.F("hits") + turn)
            new.tags.remove(1)
            got = there(get, new.pk)
            assert got == (f"title {turn}", turn, "author", ["tag 1"]), f"turn {turn}: {got}"


@check
def autocommit_reads_see_what_another_process_has_written():
    written_is_read(article)


@check
def atomic_requests_see_what_another_process_has_written():
    written_is_read(article_in_request)


@check
def pages_are_complete():
    Article.objects.all().delete()
    with reader(page, tags) as there:
        mine = []
        for turn in turns():
            new = Article.objects.create(title="page", author_id=1)
            mine.insert(0, new.pk)
            total, found = there(page, 1)
            assert total == len(mine) and [pk for pk, *_ in found] == mine[:5], f"turn {turn}: {total} {found}"
            if turn % 10 == 0:
                Article.objects.filter(pk=mine.pop()).delete()
                assert there(page, 1)[0] == len(mine), f"turn {turn}"
            assert len(there(tags)) == 10


@check
def what_is_rolled_back_or_open_is_not_read():
    with reader(exists) as there:
        for turn in range(30):
            title = f"open {turn}"
            try:
                with transaction.atomic():
                    Article.objects.create(title=title, author_id=1)
                    assert not there(exists, title) and exists(title)
                    if turn % 2:
                        raise KeyError
            except KeyError:
                pass
            assert there(exists, title) == (turn % 2 == 0)


@check
def rows_that_are_locked_are_counted_up_by_two_processes():
    number = Article.objects.create(title="hits", author_id=1).pk
    with reader(hit, article) as there:
        done = []

        def mine():
            done.append(hit(number, 50))
            connection.close()

        thread = threading.Thread(target=mine)
        thread.start()
        there(hit, number, 50)
        thread.join()
        assert done == [50] and there(article, number)[1] == 100


@check
def connections_of_one_process_see_what_the_other_has_written():
    """A view's thread writes; another thread has a connection of its own and reads."""
    number = Article.objects.create(title="threads", author_id=1).pk
    written, read, wrong = threading.Semaphore(0), threading.Semaphore(0), []

    def look():
        for turn in range(ITERATIONS):
            written.acquire()
            got = Article.objects.get(pk=number).hits
            if got != turn:
                wrong.append((turn, got))
            read.release()
        connection.close()

    thread = threading.Thread(target=look)
    thread.start()
    for turn in turns():
        Article.objects.filter(pk=number).update(hits=turn)
        written.release()
        assert read.acquire(timeout=20)
    thread.join()
    assert not wrong, wrong[:3]


def numbers(query, chunk_size=50):
    """Reads by a cursor at the server, with other queries meanwhile."""
    found = []
    for row in query.iterator(chunk_size=chunk_size):
        found.append(row.hits)
        if len(found) % 70 == 0:
            assert Tag.objects.count() == 10
    return found


@check
def cursors_at_the_server_are_read_in_portions():
    Article.objects.all().delete()
    Article.objects.bulk_create(Article(title="cursor", hits=n, author_id=1) for n in range(500))
    query = Article.objects.filter(title="cursor").order_by("hits")
    assert not connection.settings_dict.get("DISABLE_SERVER_SIDE_CURSORS")
    threads, wrong = [], []

    def work():
        try:
            for _ in range(3):
                # Without a transaction Django's cursors are WITH HOLD.
                assert numbers(query) == list(range(500))
                with transaction.atomic():
                    assert numbers(query) == list(range(500))
                # Left in the middle.
                for row in query.iterator(chunk_size=10):
                    if row.hits == 25:
                        break
                with transaction.atomic():
                    assert connection.cursor().execute("select 1 from pg_cursors where is_holdable").fetchone() is None
        except Exception as error:
            wrong.append(error)
        connection.close()

    for _ in range(8):
        threads.append(threading.Thread(target=work))
        threads[-1].start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong


@check
def statements_are_prepared_if_that_is_wanted():
    number = Article.objects.create(title="prepared", author_id=1).pk
    pids, prepared, wrong = set(), [], []

    def work(turns):
        try:
            for turn in range(turns):
                assert Article.objects.using("prepared").get(pk=number).title == "prepared"
                assert Article.objects.using("prepared").filter(title="prepared", hits__lte=turn).count() == 1
                with transaction.atomic("prepared"), connections["prepared"].cursor() as cursor:
                    cursor.execute("select pg_backend_pid(), (select count(*) from pg_prepared_statements)")
                    pid, count = cursor.fetchone()
                    pids.add(pid)
                    prepared.append(count)
        except Exception as error:
            wrong.append(error)
        connections["prepared"].close()

    threads = [threading.Thread(target=work, args=(20,)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong, wrong
    assert max(prepared) > 0, "nothing was prepared"
    servers_were_shared(pids)


@check
def requests_share_the_pool_of_psycopg():
    number = Article.objects.create(title="pooled", author_id=1).pk
    wrong = []

    def request(turn):
        try:
            Article.objects.using("pooled").filter(pk=number).update(hits=models.F("hits") + 1)
            with transaction.atomic("pooled"):
                found = Article.objects.using("pooled").select_for_update().get(pk=number)
                found.hits += 1
                found.save()
            close_old_connections()
        except Exception as error:
            wrong.append(error)

    for _ in range(4):
        threads = [threading.Thread(target=request, args=(turn,)) for turn in range(15)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    connections["pooled"].close_pool()
    assert not wrong, wrong
    assert Article.objects.get(pk=number).hits == 120


def set_up():
    with connection.schema_editor() as editor:
        for table in ("shop_article_tags", "shop_article", "shop_tag", "shop_author"):
            editor.execute(f"drop table if exists {table}")
        for model in (Author, Tag, Article):
            editor.create_model(model)
    Author.objects.create(pk=1, name="author")
    Tag.objects.bulk_create([Tag(name=f"tag {n}") for n in range(10)])
    time.sleep(CAUGHT_UP)


if __name__ == "__main__":
    set_up()
    main()
