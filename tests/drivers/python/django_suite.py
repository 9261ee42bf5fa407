"""Django 5 on psycopg 3: what one process has committed, another reads at once, in and out of transactions."""

import threading
import time
from urllib.parse import urlsplit

import django
from django.conf import settings
from django.db import connection, models, transaction

from checks import URL, check, main
from pairs import CAUGHT_UP, ITERATIONS, reader, turns

_url = urlsplit(URL)
settings.configure(
    INSTALLED_APPS=["shop"],
    USE_TZ=True,
    DATABASES={"default": {
        "ENGINE": "django.db.backends.postgresql", "NAME": _url.path[1:], "USER": _url.username,
        "PASSWORD": _url.password, "HOST": _url.hostname, "PORT": _url.port,
        "CONN_MAX_AGE": None,
        # As Django's documentation says for poolers that share servers between transactions.
        "DISABLE_SERVER_SIDE_CURSORS": True,
    }},
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
