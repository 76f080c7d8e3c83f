"""Fingerprint files: one row per page that takes part in deduplication.

The pages of the cleaned file come first, in its order; then, in recipes that deduplicate urls
before cleaning, pages that the rules dropped. Hashes do not compress, so nothing is compressed.
"""

import dataclasses

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.corpus.container import (
    Container,
    DamagedFileError,
    Part,
    pack_batch,
    unpack_batch,
    write_container,
)

FINGERPRINT_SCHEMA = pa.schema(
    [
        ("url_identity", pa.binary(16)),
        ("timestamp", pa.large_string()),
        ("digest", pa.binary(16)),
        ("rank", pa.uint64()),  # the copy of a span with the smallest rank stays
        ("units", pa.large_binary()),  # 16 bytes per dedup unit
    ]
)
_KIND = "fingerprints"


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """A fingerprint file in memory. Pages from ``cleaned_pages`` on were dropped by the rules."""

    cleaned_pages: int
    source: str  # digest of the WET file
    identity: str  # of the settings: pipelines.stages.clean_files.clean_identity
    url_identities: npt.NDArray[np.uint64]  # [pages, 2]
    timestamps: list[str]  # [pages]
    digests: npt.NDArray[np.uint8]  # [pages, 16]
    ranks: npt.NDArray[np.uint64]  # [pages]
    units: npt.NDArray[np.uint64]  # [units, 2]
    units_per_page: npt.NDArray[np.int64]  # [pages]


def write_fingerprints(
    path: str, table: pa.Table, cleaned_pages: int, source: str, identity: str = ""
) -> None:
    """Write a fingerprint file in one atomic step.

    Args:
        path: The file to write.
        table: FINGERPRINT_SCHEMA.
        cleaned_pages: Rows that are pages of the cleaned file.
        source: Digest of the WET file.
        identity: Digest of the settings.
    """
    none = pa.RecordBatch.from_pylist([], FINGERPRINT_SCHEMA)
    [rows] = table.combine_chunks().to_batches() or [none]
    head = {"cleaned_pages": cleaned_pages, "source": source, "identity": identity}
    write_container(path, _KIND, head, [Part("pages", pack_batch(rows), compress=False)])


def read_fingerprints(path: str) -> Fingerprints:
    """Read a fingerprint file and check every byte of it.

    Raises:
        OSError: The file cannot be read.
        ValueError: It is damaged, or of another version; the message names it.
    """
    with Container(path, _KIND, whole=True) as file:
        if len(file.sections) != 1:
            raise DamagedFileError(path, f"{len(file.sections)} sections")
        rows = unpack_batch(file.read(0), FINGERPRINT_SCHEMA, path)
        try:
            cleaned_pages, source, identity = (
                file.head[name] for name in ("cleaned_pages", "source", "identity")
            )
        except KeyError as error:
            raise DamagedFileError(path, f"no {error}") from None
    if type(cleaned_pages) is not int or not 0 <= cleaned_pages <= len(rows):
        raise DamagedFileError(path, f"{cleaned_pages!r:.40} cleaned pages of {len(rows)}")
    if type(source) is not str or type(identity) is not str:
        raise DamagedFileError(path, "its head is invalid")
    units = rows.column("units")
    offsets = np.frombuffer(units.buffers()[1], dtype=np.int64)[: len(units) + 1]
    if len(units) and (np.diff(offsets) % 16).any():
        raise DamagedFileError(path, "units of other than 16 bytes")
    values = units.buffers()[2]
    data = np.frombuffer(values, dtype="<u8") if values else np.empty(0, dtype="<u8")
    data = data[offsets[0] // 8 : offsets[-1] // 8] if len(units) else data[:0]
    return Fingerprints(
        cleaned_pages=cleaned_pages,
        source=source,
        identity=identity,
        url_identities=_fixed(rows.column("url_identity")).view("<u8").reshape(-1, 2),
        timestamps=rows.column("timestamp").to_pylist(),
        digests=_fixed(rows.column("digest")).reshape(-1, 16),
        ranks=rows.column("rank").to_numpy(),
        units=data.reshape(-1, 2),
        units_per_page=np.diff(offsets) // 16,
    )


def _fixed(column: pa.Array) -> npt.NDArray[np.uint8]:
    """Return the bytes of a column of 16-byte values, joined, ``[16 * rows]``."""
    data = column.buffers()[1]
    return np.frombuffer(data or b"", dtype=np.uint8)[: 16 * len(column)]
