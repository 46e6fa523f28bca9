"""Reading ahead in threads: everything comes out once, and no further ahead than allowed."""

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_batch.readahead import in_threads, read_ahead


def ahead(function, items, threads=4, ahead_bytes=1_000_000, bytes_of=lambda _: 1):
    return in_threads(function, items, threads=threads, ahead_bytes=ahead_bytes, bytes_of=bytes_of)


class Counted:
    """An iterator that knows how far it was read."""

    def __init__(self, items):
        self._items = iter(items)
        self.read = 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self._items)
        self.read += 1
        return item


@given(st.lists(st.integers(1, 50)), st.integers(1, 8), st.integers(1, 100))
def test_each_item_comes_out_once(items, threads, ahead_bytes):
    done = ahead(lambda n: n + 1, items, threads, ahead_bytes, bytes_of=lambda n: n)

    assert sorted(done) == sorted(n + 1 for n in items)


def test_items_are_done_at_the_same_time():
    together = threading.Barrier(4, timeout=30)

    assert list(ahead(lambda n: together.wait() * 0 + n, [1, 1, 1, 1])) == [1, 1, 1, 1]


def test_no_more_items_are_read_than_four_per_thread():
    source = Counted(range(1, 1000))
    results = ahead(lambda n: n, source, threads=3)
    next(results)

    # The one that was taken, twelve ahead, and the one that did not fit.
    assert source.read <= 1 + 12 + 1
    results.close()


def test_no_more_bytes_are_read_than_allowed():
    source = Counted([40] * 100)
    results = ahead(lambda n: n, source, ahead_bytes=100, bytes_of=lambda n: n)
    next(results)

    assert source.read <= 1 + 2 + 1
    results.close()


def test_an_item_larger_than_the_bound_is_done_alone():
    assert list(ahead(lambda n: n, [500, 500], ahead_bytes=100, bytes_of=lambda n: n)) == [500, 500]


def test_an_exception_is_raised_where_the_results_are_taken():
    def fail(n):
        if n == 3:
            raise KeyError(n)
        return n

    with pytest.raises(KeyError):
        list(ahead(fail, range(1, 1000)))


def test_leaving_early_ends_the_threads():
    hold = threading.Event()
    started = threading.Semaphore(0)
    done = []

    def wait(n):
        if n > 1:
            started.release()
            hold.wait(30)
        done.append(n)
        return n

    results = ahead(wait, range(1, 1000), threads=2)
    assert next(results) == 1
    started.acquire(timeout=30)
    before = {t for t in threading.enumerate() if t.name == "s3"}
    results.close()
    hold.set()
    for thread in before:
        thread.join(timeout=30)
        assert not thread.is_alive()

    assert len(done) <= 3  # the one that was taken and those that were under way


# One after the other


@given(st.lists(st.integers()), st.integers(1, 5))
def test_what_is_read_ahead_keeps_its_order(items, count):
    assert list(read_ahead(items, count)) == items


def test_no_more_is_read_ahead_than_allowed():
    items = Counted(range(1000))
    ahead = read_ahead(items, 3)

    for asked in range(1, 20):
        next(ahead)
        assert items.read <= asked + 3

    ahead.close()
    assert items.read <= 22


def test_an_error_comes_in_the_place_of_its_item():
    def broken():
        yield from range(5)
        raise ValueError("no more")

    taken = []
    with pytest.raises(ValueError, match="no more"):
        taken.extend(read_ahead(broken(), 2))

    assert taken == list(range(5))
