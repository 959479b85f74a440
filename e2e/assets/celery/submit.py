"""Submits ten tasks of 2 to 20 s, whose names begin with the first argument."""

import sys

from worker import work

for n in range(1, 11):
    work.delay(f"{sys.argv[1]}-{n}", 2 * n)
