# SPDX-License-Identifier: MIT
# python3 pool.py WORK N: prints seconds. A multiprocessing.Pool of two.
import multiprocessing
import random
import sys
import time


def noop():
    pass


def square(x):
    return x * x


def echo(value):
    return value


def lone(pool, n):
    for _ in range(n):
        pool.apply(noop)


def gather(pool, n):
    jobs = [pool.apply_async(noop) for _ in range(n)]
    for job in jobs:
        job.get()


def echoing(value):
    def run(pool, n):
        for _ in range(n):
            assert len(pool.apply(echo, (value,))) == len(value)
    return run


def main(work, n):
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.apply(noop)
        if work == "start":
            print(1, flush=True)
            return
        if work == "lone.free":
            run = lone
        elif work == "gather":
            run = gather
        elif work == "map":
            items = [random.randint(1, 1000000) for _ in range(n)]

            def run(pool, _):
                pool.map(square, items)
        elif work == "doubles":
            doubles = [random.random() for _ in range(n)]

            def run(pool, _):
                pool.apply(echo, (doubles,))
        else:
            run = echoing(b"x" * ({"echo.1m": 1, "echo.64m": 64}[work] << 20))
        start = time.monotonic()
        run(pool, n)
        print(time.monotonic() - start)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
