"""One contract for the real disk and the one in memory, and what only the latter does."""

import errno
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus._disk import Disk, DiskFile, RealDisk
from nexus.testing import DiskFault, MemoryDisk


@pytest.fixture(params=["real", "memory"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """Give an empty disk."""
    return RealDisk(tmp_path) if request.param == "real" else MemoryDisk()


def fill(disk: Disk, name: str, data: bytes) -> DiskFile:
    """Make a file of these bytes."""
    file = disk.open(name, create=True)
    assert file.append(data) == len(data)
    return file


# Test the contract.


def test_what_is_appended_is_read(disk: Disk) -> None:
    """Bytes come back from where they were put; past the end there are none."""
    file = fill(disk, "log", b"hello ")
    file.append(b"world")
    assert [file.read(0, 100), file.read(6, 3), file.read(100, 5)] == [b"hello world", b"wor", b""]
    assert file.size() == disk.size("log") == 11
    file.close()


def test_appending_goes_to_the_end(disk: Disk) -> None:
    """Reading does not move where the next bytes go, nor does opening again."""
    file = fill(disk, "log", b"abc")
    file.read(0, 1)
    again = disk.open("log")
    again.append(b"def")
    file.append(b"ghi")
    assert again.read(0, 100) == b"abcdefghi"
    file.close()
    again.close()


def test_truncate_cuts_and_never_grows(disk: Disk) -> None:
    """A file is cut to a size it has; appending goes on from there."""
    file = fill(disk, "log", b"abcdef")
    file.truncate(2)
    file.append(b"X")
    assert file.read(0, 100) == b"abX"
    with pytest.raises(ValueError, match="cut"):
        file.truncate(4)
    file.close()


def test_missing_files_are_told(disk: Disk) -> None:
    """What is not there raises FileNotFoundError."""
    calls: list[Callable[[], object]] = [
        lambda: disk.open("none"),
        lambda: disk.size("none"),
        lambda: disk.remove("none"),
        lambda: disk.rename("none", "other"),
    ]
    for call in calls:
        with pytest.raises(FileNotFoundError):
            call()
    assert disk.list() == []


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "/etc/passwd", "a\\b", "c:d", "a\0b"])
def test_names_are_plain(disk: Disk, name: str) -> None:
    """A name that leads out of the directory is refused."""
    with pytest.raises(ValueError, match="plain"):
        disk.open(name, create=True)
    fill(disk, "old", b"").close()
    with pytest.raises(ValueError, match="plain"):
        disk.rename("old", name)


def test_rename_replaces_and_remove_removes(disk: Disk) -> None:
    """Files are listed in order; a renamed one replaces its namesake."""
    for name in ("c", "a", "b"):
        fill(disk, name, name.encode()).close()
    assert disk.list() == ["a", "b", "c"]
    disk.rename("a", "b")
    disk.remove("c")
    disk.fsync_dir()
    file = disk.open("b")
    assert (disk.list(), file.read(0, 9)) == (["b"], b"a")
    file.close()


def test_open_files_outlive_their_names(disk: Disk) -> None:
    """A file that was removed can be read by who has it open."""
    file = fill(disk, "log", b"abc")
    disk.remove("log")
    assert file.read(0, 9) == b"abc"
    file.close()


def test_closed_files_are_closed(disk: Disk) -> None:
    """A file may be closed twice, and not used after."""
    file = fill(disk, "log", b"abc")
    file.fsync()
    file.close()
    file.close()
    with pytest.raises(OSError, match=r"."):
        file.append(b"x")


# Test RealDisk.


def test_real_disk_follows_no_link(tmp_path: Path) -> None:
    """A link in the directory is neither listed nor opened, and files are private."""
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_bytes(b"x")
    (tmp_path / "root" / "log").symlink_to(tmp_path / "secret")
    disk = RealDisk(tmp_path / "root")
    with pytest.raises(OSError, match=r"."):
        disk.open("log")
    fill(disk, "own", b"x").close()
    assert disk.list() == ["own"]
    assert (tmp_path / "root" / "own").stat().st_mode & 0o077 == 0


def test_real_disk_needs_its_directory(tmp_path: Path) -> None:
    """A directory that is missing is told at once."""
    with pytest.raises(NotADirectoryError, match="make it first"):
        RealDisk(tmp_path / "none")


# Test MemoryDisk.


def durable(disk: MemoryDisk, name: str, data: bytes) -> DiskFile:
    """Make a file that survives a crash."""
    file = fill(disk, name, data)
    file.fsync()
    disk.fsync_dir()
    return file


@pytest.mark.parametrize("seed", range(20))
def test_crash_keeps_what_is_synced(seed: int) -> None:
    """What was synced survives any crash; of the rest no more comes back than was written."""
    disk = MemoryDisk()
    file = durable(disk, "log", b"a" * 1000)
    file.append(b"b" * 3000)
    disk.crash(random.Random(seed))
    after = disk.open("log").read(0, 9999)
    assert after[:1000] == b"a" * 1000
    assert len(after) <= 4000
    assert set(after[1000:]) <= set(b"b\0")


def test_crashes_differ_and_repeat() -> None:
    """Unsynced bytes are lost, cut and torn in turn, and the same seed does the same."""

    def crashed(seed: int) -> bytes:
        disk = MemoryDisk()
        durable(disk, "log", b"").append(b"b" * 3000)
        disk.crash(random.Random(seed))
        return disk.open("log").read(0, 9999)

    outcomes = [crashed(seed) for seed in range(50)]
    assert outcomes == [crashed(seed) for seed in range(50)]
    assert len(set(outcomes)) > 20
    assert any(0 in each for each in outcomes)


def test_names_need_their_own_sync() -> None:
    """A synced file whose name was not synced may be gone; after fsync_dir it never is."""
    found: set[bool] = set()
    for seed in range(20):
        disk = MemoryDisk()
        fill(disk, "log", b"abc").fsync()
        disk.crash(random.Random(seed))
        found.add("log" in disk.list())
        durable(disk, "other", b"")
        disk.crash(random.Random(seed))
        assert "other" in disk.list()
    assert found == {True, False}


def test_rename_is_all_or_nothing() -> None:
    """A crash during a replace leaves the old file or the new one, never neither."""
    found: set[bytes] = set()
    for seed in range(20):
        disk = MemoryDisk()
        durable(disk, "cursor", b"old")
        fill(disk, "new", b"new").fsync()
        disk.rename("new", "cursor")
        disk.crash(random.Random(seed))
        found.add(disk.open("cursor").read(0, 9))
    assert found == {b"old", b"new"}


def test_unsynced_cut_may_be_undone() -> None:
    """A truncate that was not synced may or may not have happened after a crash."""
    found: set[bytes] = set()
    for seed in range(20):
        disk = MemoryDisk()
        durable(disk, "log", b"abcdef").truncate(2)
        disk.crash(random.Random(seed))
        found.add(disk.open("log").read(0, 9))
    assert found == {b"abcdef", b"ab"}


def test_failed_fsync_dooms_what_was_not_durable() -> None:
    """After a failed fsync a later one succeeds, and yet the bytes of the first are zeros after a crash."""
    disk = MemoryDisk()
    file = durable(disk, "log", b"aa")
    disk.faults[disk.calls + 1] = DiskFault.FAILED_FSYNC
    file.append(b"bb")
    with pytest.raises(OSError, match=r"."):
        file.fsync()
    file.append(b"cc")
    file.fsync()
    assert file.read(0, 9) == b"aabbcc"
    disk.crash(random.Random(0))
    assert disk.open("log").read(0, 9) == b"aa\0\0cc"


@pytest.mark.parametrize(
    ("fault", "code"), [(DiskFault.NO_SPACE, errno.ENOSPC), (DiskFault.IO_ERROR, errno.EIO)]
)
def test_faults_hit_the_call_they_name(fault: DiskFault, code: int) -> None:
    """A fault hits the call of its index, or the next it fits, once."""
    disk = MemoryDisk(faults={2: fault})
    file = fill(disk, "log", b"a")  # calls 0 and 1
    with pytest.raises(OSError, match=r".") as caught:
        file.append(b"b")
    assert caught.value.errno == code
    assert file.append(b"c") == 1
    assert (file.read(0, 9), disk.calls, disk.faults) == (b"ac", 5, {})


def test_fault_waits_for_a_call_it_fits() -> None:
    """A short write planned for a read hits the next append, which says how much it took."""
    disk = MemoryDisk(faults={2: DiskFault.SHORT_WRITE})
    file = fill(disk, "log", b"a")
    assert file.read(0, 9) == b"a"
    assert file.append(b"0123456789") == 5
    assert file.read(0, 99) == b"a01234"


def test_full_disk_has_no_space() -> None:
    """A disk takes what fits, then raises ENOSPC, and has room again when a file is gone."""
    disk = MemoryDisk(capacity=4)
    file = disk.open("log", create=True)
    assert file.append(b"abcdef") == 4
    with pytest.raises(OSError, match=r".") as caught:
        file.append(b"e")
    assert caught.value.errno == errno.ENOSPC
    disk.remove("log")
    assert fill(disk, "other", b"abcd").size() == 4


def test_crash_closes_files() -> None:
    """A file opened before a crash is of no use after it."""
    disk = MemoryDisk()
    file = durable(disk, "log", b"abc")
    disk.crash(random.Random(0))
    with pytest.raises(OSError, match="before the crash"):
        file.read(0, 1)
    assert (disk.crashes, disk.open("log").read(0, 9)) == (1, b"abc")
