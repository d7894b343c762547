from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from train import row_table
from train.row_table import RowTable, batches_of

CPU = torch.device("cpu")
ROWS = torch.arange(7 * 2 * 3, dtype=torch.float16).view(7, 2, 3)


class Disk:
    """Seven clips; remembers what was read."""

    def __init__(self) -> None:
        self.reads: list[list[int]] = []

    def read(self, numbers: Sequence[int]) -> Tensor:
        self.reads.append(list(numbers))
        return ROWS[list(numbers)]

    def table(self) -> RowTable:
        return RowTable("tokens", 7, self.read)


def test_rows_are_the_same_on_disk_and_loaded_and_repeated_clips_are_repeated() -> None:
    disk = Disk()
    table, numbers = disk.table(), torch.tensor([5, 0, 5])
    assert (table.device, table.nbytes) == (None, 7 * 2 * 3 * 2)
    from_disk = table.take(numbers)
    table.load(CPU)
    assert table.device == CPU
    assert torch.equal(table.take(numbers), from_disk)
    assert torch.equal(from_disk, ROWS[numbers])
    assert from_disk.dtype == torch.float16


def test_a_loaded_table_reads_no_more_and_loading_reads_a_few_clips_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_table, "_CLIPS_AT_ONCE", 3)
    disk = Disk()
    table = disk.table()
    table.load(CPU)
    assert disk.reads == [[0], [0, 1, 2], [3, 4, 5], [6]]
    table.take(torch.tensor([1]))
    assert len(disk.reads) == 4


@pytest.mark.parametrize("loaded", [(), (0,), (0, 1)])
def test_batches_are_the_same_wherever_the_tables_live(loaded: tuple[int, ...]) -> None:
    tables = [Disk().table(), Disk().table()]
    for position in loaded:
        tables[position].load(CPU)
    pieces = [np.array([3, 1]), np.array([6]), np.array([0, 1, 2])]

    def build(numbers: Tensor) -> Tensor:
        return tables[0].take(numbers) + tables[1].take(numbers)

    found = list(batches_of(tables, pieces, build, CPU))
    for batch, piece in zip(found, pieces, strict=True):
        assert torch.equal(batch, 2 * ROWS[piece])


def test_from_disk_a_batch_is_one_read_ahead_of_the_step() -> None:
    disk = Disk()
    table = disk.table()
    batches = batches_of([table], [np.array([number, 6]) for number in range(6)], table.take, CPU)
    next(batches)
    batches.close()
    assert [0, 6] in disk.reads
    assert [1, 6] in disk.reads
    assert all(len(read) == 2 for read in disk.reads)


@pytest.mark.gpu
def test_a_table_on_the_gpu_gives_what_the_disk_gives() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    table, numbers = Disk().table(), torch.tensor([5, 0, 5])
    table.load(torch.device("cuda"))
    assert torch.equal(table.take(numbers).cpu(), ROWS[numbers])
