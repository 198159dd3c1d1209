"""Arrow arrays from lists of Python, by their buffers.

`pyarrow.array` imports pandas, which takes half a second of a command that has nothing to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa


def int_array(numbers: Sequence[int | None] | np.ndarray[Any, Any]) -> pa.Array:
    """Return *numbers* as an array of int64; None is a null.

    Raises:
        OverflowError: A number takes more than 64 bits.
    """
    import numpy as np
    import pyarrow as pa

    if isinstance(numbers, list | tuple) and None in numbers:
        known = np.array([number is not None for number in numbers], bool)
        values = np.array([number or 0 for number in numbers], "<i8")
        validity = pa.py_buffer(np.packbits(known, bitorder="little"))
        return pa.Array.from_buffers(pa.int64(), len(values), [validity, pa.py_buffer(values)])
    values = np.ascontiguousarray(numbers, "<i8")
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(values)])


def text_array(texts: Sequence[str]) -> pa.Array:
    """Return *texts* as an array of large_string.

    Raises:
        UnicodeEncodeError: One of them is no text, such as a name that is no UTF-8.
    """
    import numpy as np
    import pyarrow as pa

    joined = "".join(texts)
    data = joined.encode()
    is_ascii = len(data) == len(joined)
    sizes = map(len, texts if is_ascii else map(str.encode, texts))
    ends = np.zeros(len(texts) + 1, "<i8")
    np.cumsum(np.fromiter(sizes, "<i8", count=len(texts)), out=ends[1:])
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)
