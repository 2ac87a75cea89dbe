"""Training rows of a teacher: every label of the training part once, with several users in one row.

Histories are short and of very different lengths: rows of one user each would be mostly padding (Beauty: 6 labels in 50
positions). So windows are packed: a row holds complete windows side by side, distinguished by their segment numbers, and every
network treats each segment as if it were alone. All batches have the same shape, whatever the users.
"""

import numpy as np
from jaxtyping import Int32, Int64

from delrec_jax.batches import Arrays, batch_type
from delrec_jax.errors import UserError
from delrec_jax.padding import PAD_ITEM


@batch_type
class TrainingRows:
    """Packed windows; a batch for a teacher consists of some of the rows.

    Attributes:
      items: int32 [R, L] item indices, -1 at padding.
      labels: int32 [R, L] the item that comes directly after, -1 at padding.
      segments: int32 [R, L] number of the window within the row, from 1; 0 at padding.
    """

    items: Int32[Arrays, "R L"]
    labels: Int32[Arrays, "R L"]
    segments: Int32[Arrays, "R L"]

    def __len__(self) -> int:
        return len(self.items)


def training_rows(
    offsets: Int64[np.ndarray, " U+1"], items: Int32[np.ndarray, " N"], *, length: int
) -> TrainingRows:
    """Cuts sequences into windows and packs them.

    A user with n items has n - 1 labels. They are cut from the end into windows of `length` labels, so that only a user's
    first window is shorter.

    Args:
      offsets: user u owns items[offsets[u]:offsets[u + 1]], in time order.
      items: item indices of all users, training part only.
      length: L, positions per row; at most the model's `max_length`.

    Raises:
      UserError: no user has two items, so there is nothing to learn from.
    """
    starts, sizes = _cut(offsets, length)
    if not len(sizes):
        raise UserError(
            "teacher: no user has two interactions in the training part, so there is no next item to learn; lower "
            "data.k_core or data.min_rating, or add more data"
        )
    row, column, segment = _pack(sizes, length)
    nth = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = np.repeat(row, sizes), np.repeat(column, sizes) + nth
    source = np.repeat(starts, sizes) + nth
    shape = (int(row.max()) + 1, length)
    rows = TrainingRows(
        items=np.full(shape, PAD_ITEM, np.int32),
        labels=np.full(shape, PAD_ITEM, np.int32),
        segments=np.zeros(shape, np.int32),
    )
    rows.items[place] = items[source]
    rows.labels[place] = items[source + 1]
    rows.segments[place] = np.repeat(segment, sizes)
    return rows


def _cut(offsets: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows as (index of the first item, number of labels): users in order, each from the latest window backwards."""
    labels = np.maximum(np.diff(offsets) - 1, 0)  # [U]
    windows = -(-labels // length)  # [U]
    user = np.repeat(np.arange(len(labels)), windows)  # of each window
    nth_from_end = np.arange(len(user)) - np.repeat(np.cumsum(windows) - windows, windows)
    ends = labels[user] - nth_from_end * length  # labels of the user up to the window's end
    begins = np.maximum(ends - length, 0)
    return offsets[:-1][user] + begins, ends - begins


def _pack(sizes: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Best-fit decreasing: puts each window into the fullest row with room for it; returns (row, column, segment) of each."""
    row, column, segment = (np.empty(len(sizes), np.int64) for _ in range(3))
    rows_by_room: list[list[int]] = [[] for _ in range(length + 1)]
    segments: list[int] = []  # number of windows in each row so far
    for window in np.argsort(-sizes, kind="stable"):
        size = int(sizes[window])
        room = next((r for r in range(size, length + 1) if rows_by_room[r]), 0)
        if room:
            chosen = rows_by_room[room].pop()
        else:
            chosen, room = len(segments), length
            segments.append(0)
        segments[chosen] += 1
        row[window], column[window], segment[window] = chosen, length - room, segments[chosen]
        rows_by_room[room - size].append(chosen)
    return row, column, segment
