"""SQLAlchemy 2 on psycopg 3, and on asyncpg: what one process has committed, another reads at once, whatever its sessions are
like; statements are prepared and cached as both do by default."""

import asyncio
import time

from sqlalchemy import ForeignKey, create_engine, delete, func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship, selectinload

from checks import URL, check, main, servers_were_shared
from pairs import CAUGHT_UP, reader, turns

ENGINE = create_engine(URL.replace("postgres://", "postgresql+psycopg://"), pool_size=5)
# As a session begins: a transaction (the default), none, or one that is told to read only.
WAYS = {
    "default": ENGINE,
    "autocommit": ENGINE.execution_options(isolation_level="AUTOCOMMIT"),
    "read_only": ENGINE.execution_options(postgresql_readonly=True),
}


class Base(DeclarativeBase):
    pass


class Customer(Base):
    __tablename__ = "sa_customer"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", order_by="Order.id")


class Product(Base):
    __tablename__ = "sa_product"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    __tablename__ = "sa_order"
    id: Mapped[int] = mapped_column(primary_key=True)
    status: Mapped[str]
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    customer: Mapped[Customer] = relationship(back_populates="orders")
    lines: Mapped[list["Line"]] = relationship(back_populates="order", cascade="all, delete-orphan", order_by="Line.id")


class Line(Base):
    __tablename__ = "sa_line"
    id: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    order_id: Mapped[int] = mapped_column(ForeignKey(Order.id, ondelete="cascade"))
    product_id: Mapped[int] = mapped_column(ForeignKey(Product.id))
    order: Mapped[Order] = relationship(back_populates="lines")
    product: Mapped[Product] = relationship()


# --- What the second process does ----------------------------------------------------------------------


def order_of(way, number):
    """Everything about an order, by lazy loads; `None` if it is not there."""
    with Session(WAYS[way]) as session:
        order = session.get(Order, number)
        if order is None:
            return None
        return order.status, order.customer.name, [(line.product.name, line.amount) for line in order.lines]


def catalogue(way):
    with Session(WAYS[way]) as session:
        return [product.name for product in session.scalars(select(Product).order_by(Product.id))]


def orders_of(way, customer):
    with Session(WAYS[way]) as session:
        query = select(Customer).where(Customer.id == customer).options(selectinload(Customer.orders))
        return [order.id for order in session.scalars(query).one().orders]


def count(way, status):
    with Session(WAYS[way]) as session:
        return session.scalar(select(func.count()).select_from(Order).where(Order.status == status))


# --- Checks --------------------------------------------------------------------------------------------


def create(status, lines):
    with Session(ENGINE) as session:
        order = Order(status=status, customer_id=1, lines=[Line(product_id=p, amount=a) for p, a in lines])
        session.add(order)
        session.commit()
        return order.id


def committed_is_read(way):
    with reader(order_of, catalogue) as there:
        for turn in turns():
            number = create("new", [(turn % 5 + 1, turn), (turn % 3 + 1, 1)])
            lines = [(f"product {turn % 5 + 1}", turn), (f"product {turn % 3 + 1}", 1)]
            got = there(order_of, way, number)
            assert got == ("new", "customer 1", lines), f"turn {turn}: {got}"
            assert len(there(catalogue, way)) == 5
            with Session(ENGINE) as session:
                session.get(Order, number).status = f"paid {turn}"
                session.commit()
            got = there(order_of, way, number)
            assert got == (f"paid {turn}", "customer 1", lines), f"turn {turn}: {got}"


@check
def default_sessions_read_what_another_process_has_committed():
    committed_is_read("default")


@check
def autocommit_sessions_read_what_another_process_has_committed():
    committed_is_read("autocommit")


@check
def read_only_sessions_read_what_another_process_has_committed():
    committed_is_read("read_only")


@check
def lists_and_counts_are_complete():
    with reader(orders_of, count) as there:
        with Session(ENGINE) as session:
            session.execute(delete(Order))
            session.commit()
        mine = []
        for turn in turns():
            way = list(WAYS)[turn % 3]
            mine.append(create("list", [(1, 1)]))
            assert there(orders_of, way, 1) == mine, f"turn {turn}"
            assert there(count, way, "list") == len(mine), f"turn {turn}"
            if turn % 20 == 19:
                with Session(ENGINE) as session:
                    session.execute(delete(Order).where(Order.id.in_(mine[:10])))
                    session.commit()
                del mine[:10]
                assert there(orders_of, way, 1) == mine, f"turn {turn}"


@check
def what_is_not_committed_is_not_read():
    with reader(count) as there:
        for turn in range(30):
            way = list(WAYS)[turn % 3]
            with Session(ENGINE) as session:
                session.add(Order(status=f"open {turn}", customer_id=1))
                session.flush()
                assert there(count, way, f"open {turn}") == 0
                # Its own transaction sees it.
                assert session.scalar(select(func.count()).where(Order.status == f"open {turn}")) == 1
                session.rollback() if turn % 2 else session.commit()
            assert there(count, way, f"open {turn}") == 1 - turn % 2


@check
def engines_of_one_process_read_what_the_other_has_committed():
    other = create_engine(ENGINE.url, isolation_level="AUTOCOMMIT")
    number = create("turn", [])
    with other.connect() as connection:
        for turn in turns():
            with Session(ENGINE) as session:
                session.execute(update(Order).where(Order.id == number).values(status=f"turn {turn}"))
                session.commit()
            assert connection.scalar(select(Order.status).where(Order.id == number)) == f"turn {turn}"
            assert len(connection.execute(select(Product)).all()) == 5
    other.dispose()


@check
def lazy_loads_after_a_commit_are_fresh():
    """After commit() everything is expired and loaded again, in a new transaction."""
    number = create("lazy", [(1, 1)])
    with Session(WAYS["autocommit"], expire_on_commit=True) as session:
        order = session.get(Order, number)
        for turn in turns():
            with Session(ENGINE) as writer:
                writer.add(Line(order_id=number, product_id=2, amount=turn))
                writer.get(Order, number).status = f"lazy {turn}"
                writer.commit()
            session.commit()
            assert order.status == f"lazy {turn}" and len(order.lines) == turn + 2, f"turn {turn}"
            assert order.lines[-1].product.name == "product 2" and order.customer.name == "customer 1"


SERVER = text("select pg_backend_pid(), (select count(*) from pg_prepared_statements)")


@check
async def statements_are_prepared_and_cached_on_asyncpg():
    engine = create_async_engine(URL.replace("postgres://", "postgresql+asyncpg://"), pool_size=20)
    number = create("async", [(1, 7)])

    async def work(client):
        servers = []
        for turn in range(15):
            async with AsyncSession(engine) as session:
                order = await session.get(Order, number, options=[selectinload(Order.lines)])
                assert order.status == "async" and [line.amount for line in order.lines] == [7]
                assert await session.scalar(select(client * turn + func.length(Order.status)).where(Order.id == number)) == client * turn + 5
                servers.append(tuple((await session.execute(SERVER)).one()))
        return servers

    servers = sum(await asyncio.gather(*map(work, range(20))), [])
    await engine.dispose()
    assert max(count for _, count in servers) > 0, "nothing was prepared"
    servers_were_shared(pid for pid, _ in servers)


@check
def results_are_streamed_by_cursors_at_the_server():
    with Session(ENGINE) as session:
        session.execute(delete(Order))
        session.add_all(Order(status=f"stream {n}", customer_id=1) for n in range(500))
        session.commit()
    query = select(Order).order_by(Order.id).execution_options(yield_per=40)
    for way in ("default", "read_only"):
        with Session(WAYS[way]) as one, Session(WAYS[way]) as two:
            pairs = zip(one.scalars(query), two.scalars(query), strict=True)
            found = [(first.status, second.status) for first, second in pairs]
        assert found == [(f"stream {n}",) * 2 for n in range(500)]


def set_up():
    Base.metadata.drop_all(ENGINE)
    Base.metadata.create_all(ENGINE)
    with Session(ENGINE) as session:
        session.add_all([Customer(id=1, name="customer 1"), *(Product(id=n, name=f"product {n}") for n in range(1, 6))])
        session.commit()
    time.sleep(CAUGHT_UP)


if __name__ == "__main__":
    set_up()
    main()
