"""Formats as a user gets them wrong, one fault each."""

from batchrunner.formats import RowFormat
from frames_format import Frames, FramesAgain


class ReadRaises(Frames):
    def read(self, file, shard, *, compression, columns, partition):
        yield from ()
        raise KeyError("width")


class PartOfHeaders:
    def __init__(self, file):
        self.file = file

    def append(self, rows):
        if b"'id': 8" in rows:
            raise ValueError("another header")
        self.file.write(rows)

    def close(self):
        """Leave the file open."""


class WriterRaises(Frames):
    def writer(self, file, *, compression, settle, restart):
        return PartOfHeaders(file)


class EncodesText(Frames):
    def encode(self, rows):
        return repr(rows)


class CutsNothing(Frames):
    def cut(self, size, **_):
        return None


class CutRaises(Frames):
    def cut(self, size, **_):
        raise KeyError("size")


class CutTakesLess(Frames):
    def cut(self, size):
        return []


class CutSkips(Frames):
    def cut(self, size, **how):
        return super().cut(size, **how)[1:]


class CutDoubles(Frames):
    def cut(self, size, **how):
        return super().cut(size, **how)[:1] * 2


class HasNoSuffixes(RowFormat):
    cut = read = span = encode = second_reader = None


class HasOneSuffix(Frames):
    suffixes = ".frames"


class LacksMethods(RowFormat):
    suffixes = (".frames",)


class TakesArguments(Frames):
    def __init__(self, separator):
        """Take what is not given."""


class HasNoSecondReader(Frames):
    def second_reader(self):
        return None


class ComparisonRaises(Frames):
    def has_same_bytes(self, file, shard, *, columns, hashed):
        raise KeyError("hash")


class ExitsAgain(FramesAgain):
    def part_records(self, file, *, compression):
        raise SystemExit(0)


class CountsWords(FramesAgain):
    def count_part(self, file, *, compression):
        return "many"


class LacksAKey(FramesAgain):
    def part_records(self, file, *, compression):
        yield from ()
        raise KeyError("width")


class SecondReaderExits(Frames):
    def second_reader(self):
        return ExitsAgain()


class SecondReaderCountsWords(Frames):
    def second_reader(self):
        return CountsWords()


class SecondReaderLacksAKey(Frames):
    def second_reader(self):
        return LacksAKey()
