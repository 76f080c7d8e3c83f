"""Which processes train as one, as options or the surroundings say; asks JAX for nothing."""

import dataclasses

from pipelines.options import check_bounds, option, option_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Processes:
    """Which processes train together.

    Either all three are given, or none and the surroundings say it (:func:`detect_cluster`).

    >>> Processes(coordinator="10.0.0.1:8476", processes=2)
    Traceback (most recent call last):
        ...
    ValueError: --coordinator, --processes and --process-id go together; missing: --process-id
    """

    coordinator: str | None = option("where process 0 listens", default=None, metavar="HOST:PORT")
    processes: int | None = option("number of processes", default=None, metavar="N", least=1)
    process_id: int | None = option(
        "number of this process, from 0", default=None, metavar="K", least=0
    )

    def __post_init__(self) -> None:
        check_bounds(self)
        values = dataclasses.asdict(self)
        missing = [option_of(Processes, name) for name, value in values.items() if value is None]
        if 0 < len(missing) < len(values):
            raise ValueError(
                "--coordinator, --processes and --process-id go together; missing: "
                + ", ".join(missing)
            )
        if self.coordinator is None or self.processes is None or self.process_id is None:
            return
        host, colon, port = self.coordinator.rpartition(":")
        if not host or not colon or not port.isdigit():
            raise ValueError(
                f"--coordinator must be HOST:PORT of the first process, got {self.coordinator!r}"
            )
        if self.process_id >= self.processes:
            raise ValueError(
                f"--process-id must be from 0 to {self.processes - 1} with --processes "
                f"{self.processes}, got {self.process_id}"
            )
