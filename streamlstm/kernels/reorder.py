"""Records that wait for older ones of their stream: doubly linked lists in order of time, over a pool of places.

| array | row |
|---|---|
| time (A) int64, links (A, 2) int32 | of a place, where a record may wait: its time, the places before and after it |
| lists (S + 1, LISTS) int32 | of stream s, row s + 1: first and last place, how many, the streams before and after it |

Row 0 of `lists` closes the ring of streams that have records waiting, the one whose latest record came longest ago
first; its COUNT is how many they are. No place, or row 0, is the end of a list.
"""

import numpy as np

from streamlstm.kernels.compiling import jit
from streamlstm.types import NO_TIME

BEFORE, AFTER = range(2)
FIRST, LAST, COUNT, OLDER, NEWER, LISTS = range(6)
NOWHERE = np.int32(-1)


@jit(inline=True)
def insert_record(place, time, links, row):
    """Puts `place` into the list of `row` behind all that are not later; in order of time that is its end."""
    at, behind = row[LAST], NOWHERE
    while at != NOWHERE and time[at] > time[place]:
        behind, at = at, links[at, BEFORE]
    links[place, BEFORE], links[place, AFTER] = at, behind
    if at == NOWHERE:
        row[FIRST] = place
    else:
        links[at, AFTER] = place
    if behind == NOWHERE:
        row[LAST] = place
    else:
        links[behind, BEFORE] = place
    row[COUNT] += 1


@jit(inline=True)
def pop_record(links, row):
    """Takes the first place out of the list of `row` and returns it."""
    place = row[FIRST]
    row[FIRST] = links[place, AFTER]
    row[COUNT] -= 1
    if row[COUNT] == 0:
        row[LAST] = NOWHERE
    else:
        links[row[FIRST], BEFORE] = NOWHERE
    return place


@jit(inline=True)
def unlink_stream(s, lists):
    """Takes row s out of the ring."""
    older, newer = lists[s, OLDER], lists[s, NEWER]
    lists[older, NEWER], lists[newer, OLDER] = newer, older


@jit
def release_batch(streams, places, time, links, lists, window_ns, most, most_streams, out_order, out_gone):
    """Takes B records in their order; writes the places released by them and returns how many, and how many streams left.

    streams, places int32 (B), new places of records whose times stand in `time`. A record is released when its stream has
    a time at least window_ns later, or more than `most` waiting, of which the first goes; or when a new stream would be
    one more than `most_streams` (-1: no bound) and its own is the one of the ring that goes. Without a time it is
    released at once. `most` 0 releases nothing. out_order int32 has room for all that wait, out_gone int32 (B) gets the
    streams that left the ring.
    """
    released = gone = 0
    for b in range(streams.shape[0]):
        place, s = places[b], streams[b] + np.int32(1)
        if time[place] == NO_TIME:
            out_order[released] = place
            released += 1
            continue
        row = lists[s]
        if row[COUNT] > 0:
            unlink_stream(s, lists)
        else:
            if lists[0, COUNT] == most_streams:
                idle = lists[0, NEWER]
                while lists[idle, COUNT] > 0:
                    out_order[released] = pop_record(links, lists[idle])
                    released += 1
                unlink_stream(idle, lists)
                lists[0, COUNT] -= 1
                out_gone[gone] = idle - 1
                gone += 1
            lists[0, COUNT] += 1
        newest = lists[0, OLDER]
        row[OLDER], row[NEWER] = newest, 0
        lists[newest, NEWER] = lists[0, OLDER] = s
        insert_record(place, time, links, row)
        due = max(time[row[LAST]], NO_TIME + window_ns) - window_ns
        while most > 0 and (row[COUNT] > most or time[row[FIRST]] <= due):
            out_order[released] = pop_record(links, row)
            released += 1
    return released, gone


@jit
def walk_lists(links, lists, out_order):
    """Writes all places that wait, int32, stream after stream of the ring, and returns how many they are."""
    count, s = 0, lists[0, NEWER]
    while s != 0:
        place = lists[s, FIRST]
        while place != NOWHERE:
            out_order[count] = place
            count += 1
            place = links[place, AFTER]
        s = lists[s, NEWER]
    return count
