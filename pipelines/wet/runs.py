"""Text of a WET file without gaps, and where record headers begin in it."""

import collections
import re
import zlib
from collections.abc import Iterator

from isal import isal_zlib

from c4_filters.verdicts import RejectReason
from pipelines.wet.members import (
    GZIP_MAGIC,
    INFLATE_BYTES,
    PIECE_BYTES,
    Stored,
    inflate_pieces,
    inflate_whole,
    next_member,
    opens_member,
    probe_member,
    salvage_pieces,
)
from pipelines.wet.results import MAX_HEADER_BYTES

_RESCAN_BYTES = 1 << 20  # how far before the point of failure the next good member is looked for
PROBE_BYTES = 4 << 10  # bytes of text examined to distinguish a record header from a quoted one
# Where a length or a member's begin says that a record begins, a field that only WARC headers have
# is enough, in the lines right below the version line.
_LIKELY_HEADER = re.compile(
    rb"WARC/\d+\.\d+[ \t]*\r?\n(?:[^\r\n]+\r?\n){0,20}?(?i:warc-[a-z-]+|content-length)[ \t]*:"
)
# Where one is searched for, a text may quote such lines: nothing but fields down to a blank line,
# and of those that every record has, the type and one more.
_WHOLE_HEADER = re.compile(
    rb"WARC/\d+\.\d+[ \t]*\r?\n((?:[!-9;-~]+[ \t]*:[^\n]*\n|[ \t]+[^\s][^\n]*\n)*)(\r?\n)?"
)
_TYPE_FIELD = re.compile(rb"(?im)^warc-type[ \t]*:")
_OTHER_FIELD = re.compile(rb"(?im)^(?:content-length|warc-record-id|warc-date)[ \t]*:")
_HEADER_STOP = re.compile(rb"\n\r?\n|WARC/")


class Run:
    """Text that follows without a gap: of gzip members end to end, or stored as it is.

    A run of members ends before bytes that are not a gzip member, or with the readable part of a
    damaged one (``damage``); a stored one ends before the next gzip member. Reading of the file
    then continues at ``after``. ``buffer[at:]`` is the text not yet consumed.
    """

    def __init__(self, stored: Stored, pos: int) -> None:
        self.buffer = bytearray()
        self.at = 0
        self.ended = False
        self.after = pos
        self.damage: RejectReason | None = None
        self.damage_reported = False  # a Reject has already said so
        self.over_limit = False  # the rest of the file is not read
        self.limit_reported = False  # a Reject has already said so
        self._stored = stored
        self._base = 0  # bytes of the run before buffer[0]
        self._marks: collections.deque[tuple[int, int]] = collections.deque()
        self._member_starts: set[int] = set()  # of the marks
        self._damage_start = 0
        self._between = False  # all members begun are in the buffer to their end
        head = bytes(stored.view(pos, 3))
        self.may_try, self.in_vain = stored.may_try, stored.in_vain
        self._is_gzip = GZIP_MAGIC.startswith(head)  # may be cut to fewer than three bytes
        self._pieces = self._member_pieces() if self._is_gzip else self._stored_pieces()

    # Places

    @property
    def left(self) -> int:
        """Unread bytes in the buffer."""
        return len(self.buffer) - self.at

    def locate(self) -> tuple[int, int]:
        """(offset, inner_offset) of the next byte."""
        place = self._base + self.at
        while len(self._marks) > 1 and self._marks[1][0] <= place:
            self._member_starts.discard(self._marks.popleft()[0])
        start, offset = self._marks[0]
        return (offset, place - start) if self._is_gzip else (offset + place - start, 0)

    def may_stop(self) -> bool:
        """Whether the text at hand is all that the members begun so far hold."""
        return self._between

    def between_members(self, ahead: int) -> bool:
        """Whether a gzip member is known to end ``ahead`` bytes from here."""
        if self._between and ahead == self.left:
            return True
        place = self._base + self.at + ahead
        return self._is_gzip and place in self._member_starts

    def in_damage(self, ahead: int) -> bool:
        """Whether the next ``ahead`` bytes reach into the damaged member."""
        return self.damage is not None and self._base + self.at + ahead > self._damage_start

    def starts_damage(self) -> bool:
        """Whether the damaged member begins right here."""
        return self.damage is not None and self._base + self.at == self._damage_start

    def cut_off(self) -> bool:
        """Whether the limit of the file cut off what was read last."""
        return self.over_limit and self.left == 0

    # Reading

    def fill(self, size: int) -> bool:
        """Fill the buffer with ``size`` unread bytes if the run has them; return whether it has."""
        while len(self.buffer) - self.at < size and not self.ended:
            if self.at > PIECE_BYTES:
                del self.buffer[: self.at]
                self._base += self.at
                self.at = 0
            piece = next(self._pieces, None)
            if piece is None:
                self.ended = True
                continue
            left = self._stored.text_left
            if len(piece) > left:
                piece = piece[:left]
                self.ended = self.over_limit = True
                self.damage, self._damage_start = RejectReason.TOO_LARGE, self._marks[-1][0]
                self._between = False
            self._stored.text_left -= len(piece)
            self.buffer += piece
        return len(self.buffer) - self.at >= size

    def find_header(self, start: int, limit: int) -> int | None:
        """Distance to the next whole record header at ``start`` or beyond, before ``limit``."""
        while start < limit:
            # No more than needed: text of the next member would keep the fast path from resuming.
            self.fill(min(start + PROBE_BYTES, limit + 4))
            found = self.buffer.find(b"WARC/", self.at + start, self.at + limit + 4)
            if found < 0:
                start = max(start, self.left - 4)  # of what has been searched
                if self.left >= limit + 4 or not self.fill(self.left + 1):
                    return None
                continue
            start = found - self.at
            whole, stop = self._whole_header(start)
            # Members begin with records as a rule, so there a header may be cut by damage.
            if whole or (self.between_members(start) and self.header_at(start)):
                return start if start < limit else None
            start = stop
        return None

    def header_at(self, start: int) -> bool:
        """Whether a record header begins at distance ``start``, where one is expected."""
        self.fill(start + PROBE_BYTES)  # may move the buffer, not the distance
        begin = self.at + start
        return _LIKELY_HEADER.match(self.buffer, begin, begin + PROBE_BYTES) is not None

    def begins_whole_header(self) -> bool:
        """Whether a whole record header begins right here."""
        return self._whole_header(0)[0]

    def _whole_header(self, start: int) -> tuple[bool, int]:
        """Whether a whole record header begins at ``start``, else from where another one may.

        A header within the fields of an incomplete one ends where these end, so no text is examined
        twice.
        """
        size = PROBE_BYTES
        while True:
            more = self.fill(start + size)  # may move the buffer, not the distance
            begin = self.at + start
            found = _WHOLE_HEADER.match(self.buffer, begin, begin + size)
            if found is None:
                return False, start + 1
            stop = found.end(1)
            cut = found.end() == stop and self.buffer.find(b"\n", stop, begin + size) < 0
            if not (cut and more and size < MAX_HEADER_BYTES):
                break
            size = MAX_HEADER_BYTES
        whole = (
            found.end() > stop
            and _TYPE_FIELD.search(self.buffer, begin, stop) is not None
            and _OTHER_FIELD.search(self.buffer, begin, stop) is not None
        )
        return whole, stop - self.at

    def find_body(self) -> tuple[int | None, int | None]:
        """Distances to what follows the first blank line and to the next whole record header.

        Only the first of the two is looked for, the other is None: to look for one after the other
        would read 64 kB for each of many short records. Both are None if too far or absent.
        """
        start = 1
        while True:
            more = self.fill(min(start + PROBE_BYTES, MAX_HEADER_BYTES))
            stop = _HEADER_STOP.search(self.buffer, self.at + start, self.at + MAX_HEADER_BYTES)
            if stop is None:
                if not more or self.left >= MAX_HEADER_BYTES:
                    return None, None
                start = max(start, self.left - 4)
                continue
            if self.buffer[stop.start()] == ord("\n"):
                return stop.end() - self.at, None
            place = stop.start() - self.at
            whole, fields_end = self._whole_header(place)
            if whole or (self.between_members(place) and self.header_at(place)):
                return None, place
            start = max(place + 1, fields_end - 1)  # the line end before a blank line

    def skip_to_header(self, start: int) -> int:
        """Move to the next whole header from ``start`` on, or to the end; return bytes skipped."""
        skipped = 0
        while True:
            found = self.find_header(start, start + PIECE_BYTES)
            step = found if found is not None else min(self.left, start + PIECE_BYTES)
            self.at += step
            skipped += step
            start = 0
            if found is not None or not self.fill(1):
                return skipped

    # Where the text comes from

    def _stored_pieces(self) -> Iterator[bytes]:
        """Text stored as it is, up to the next gzip member (whose first bytes are not UTF-8)."""
        self._marks.append((0, self.after))
        while piece := bytes(self._stored.view(self.after, PIECE_BYTES)):
            found = piece.find(GZIP_MAGIC)
            while found >= 0 and not opens_member(self._stored, self.after + found):
                found = piece.find(GZIP_MAGIC, found + 1)
            if found >= 0:
                self.after += found
                yield piece[:found]
                return
            if len(piece) == PIECE_BYTES:
                piece = piece[: 1 - len(GZIP_MAGIC)]  # the magic may lie across the cut
            self.after += len(piece)
            yield piece

    def _member_pieces(self) -> Iterator[bytes]:
        while window := self._stored.view(self.after, INFLATE_BYTES):
            if not GZIP_MAGIC.startswith(bytes(window[:3])):
                return
            self._between = False
            if whole := inflate_whole(self._stored, self.after, window):
                self._mark_member()
                self.after = whole[1]
                self._between = True
                yield whole[0]
                continue
            # Too large to hold, or damaged. Its checksum comes last, so it is inflated twice: what
            # is known to be damaged is judged more strictly.
            for codec in (isal_zlib, zlib):
                damage, end, inflated = probe_member(codec, self._stored, self.after)
                if damage is None:
                    self._mark_member()
                    yield from inflate_pieces(codec, self._stored, self.after)
                    self.after = end
                    break
            else:
                start = self.after
                self._stored.in_vain(end - start + inflated)
                # Members may be nested so that the same bytes spoil each of them.
                behind = _RESCAN_BYTES if self._stored.may_try() else 0
                self.after, at_end = next_member(self._stored, max(start + 1, end - behind))
                self.damage = damage if at_end else RejectReason.CORRUPT_GZIP
                self._mark_member(start)
                self._damage_start = self._marks[-1][0]
                yield from salvage_pieces(self._stored, start)
                return

    def _mark_member(self, offset: int | None = None) -> None:
        place = self._base + len(self.buffer)
        if self._marks and self._marks[-1][0] == place:
            self._marks.pop()  # that one was empty
        self._marks.append((place, self.after if offset is None else offset))
        self._member_starts.add(place)
