"""People and keys in the data folder: changes, refusals, other processes, damage, power cuts."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from atomstream.errors import ConfigError
from atomstream.server.people.log import PEOPLE_FILE, PeopleLog
from atomstream.server.people.passwords import PASSWORDS_FILE, is_password
from atomstream.server.people.records import Actor
from atomstream.server.people.rights import Right
from atomstream.server.people.store import NewKey, People
from atomstream.server.upkeep.backup import back_up
from atomstream.server.upkeep.check import check
from atomstream.server.upkeep.restore import restore
from atomstream.system.files import FileSystem

ACTOR = Actor("test", "command line")
PROJECT = "11111111-1111-4111-8111-111111111111"
OTHER = "22222222-2222-4222-8222-222222222222"


def digest(made: NewKey) -> bytes:
    return hashlib.sha256(made.secret.encode()).digest()


def test_an_empty_folder_has_nobody(memory_path: Path) -> None:
    """Reading makes no file: a server with one key stays as it was."""
    people = People(memory_path)
    assert not people.directory.users
    assert list(memory_path.iterdir()) == []


def test_people_and_keys_are_there_after_a_restart(memory_path: Path, cheap_hash: None) -> None:
    """What was made is read again by another process, with its rights and projects."""
    people = People(memory_path)
    people.add_user(ACTOR, "Anna Sommer", "operator", (PROJECT,), password="correct horse battery")
    made = people.create_key(ACTOR, "write", user="anna sommer", projects=(PROJECT, OTHER))
    again = People(memory_path)
    key = again.directory.key_with(digest(made))
    assert key is not None
    principal = again.directory.of_key(key)
    assert principal is not None
    assert (principal.name, principal.right, principal.projects) == ("Anna Sommer", Right.WRITE, {PROJECT})
    assert principal.sees(PROJECT)
    assert not principal.sees(OTHER)
    assert not principal.sees(None)


def test_nothing_secret_is_stored(memory_path: Path, cheap_hash: None) -> None:
    """Neither passwords nor keys nor tokens of links are in a file, and only the user can read the files."""
    people = People(memory_path)
    people.add_user(ACTOR, "anna", "admin", password="correct horse battery")
    made = people.create_key(ACTOR, "admin", user="anna")
    token = people.link_for(ACTOR, "anna")
    for path in memory_path.iterdir():
        content = path.read_text()
        assert not any(secret in content for secret in ("correct horse", made.secret, token))
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p: p.add_user(ACTOR, " ANNA ", "viewer"), "already"),
        (lambda p: p.add_user(ACTOR, "  ", "viewer"), "empty"),
        (lambda p: p.add_user(ACTOR, "x\ny", "viewer"), "printed"),
        (lambda p: p.add_user(ACTOR, "x" * 300, "viewer"), "256"),
        (lambda p: p.add_user(ACTOR, "bob", "boss"), "viewer, operator, admin"),
        (lambda p: p.add_user(ACTOR, "bob", "admin", (PROJECT,)), "all projects"),
        (lambda p: p.add_user(ACTOR, "bob", "viewer", password="short"), "at least 12"),
        (lambda p: p.add_user(ACTOR, "bob the builder", "viewer", password="Bob the Builder"), "name"),
        (lambda p: p.add_user(ACTOR, "bob", "viewer", password="aaaaaaaaaaaaaaaa"), "different"),
        (lambda p: p.remove_user(ACTOR, "anna"), "last administrator"),
        (lambda p: p.set_user(ACTOR, "anna", role="viewer"), "last administrator"),
        (lambda p: p.set_user(ACTOR, "anna", projects=(PROJECT,)), "all projects"),
        (lambda p: p.set_user(ACTOR, "carl", role="viewer"), "no person"),
        (lambda p: p.set_user(ACTOR, "vera", new_name="Anna"), "already"),
        (lambda p: p.create_key(ACTOR, "write", user="vera"), "never has more rights"),
        (lambda p: p.create_key(ACTOR, "read", user="carl"), "no person"),
        (lambda p: p.create_key(ACTOR, "read"), "person or to an instrument"),
        (lambda p: p.create_key(ACTOR, "all", user="anna"), "read, write, admin"),
        (lambda p: p.create_key(ACTOR, "admin", instrument="MBE", projects=(PROJECT,)), "all projects"),
        (lambda p: p.create_key(ACTOR, "read", user="anna", expires=1.0), "future"),
        (lambda p: p.revoke_key(ACTOR, "ffffffff"), "no key"),
        (lambda p: p.revoke_key(ACTOR, ""), "no key"),
        (lambda p: p.link_for(ACTOR, "carl"), "no person"),
    ],
)
def test_what_is_refused(memory_path: Path, change: Callable[[People], object], sentence: str) -> None:
    """A change that is not possible is refused with the reason, and changes nothing."""
    people = People(memory_path)
    people.add_user(ACTOR, "anna", "admin")
    people.add_user(ACTOR, "vera", "viewer", (PROJECT,))
    before = (memory_path / PEOPLE_FILE).read_bytes()
    with pytest.raises(ConfigError, match=sentence):
        change(people)
    assert (memory_path / PEOPLE_FILE).read_bytes() == before


def test_names_are_equal_if_they_look_equal(memory_path: Path) -> None:
    """Case and the composition of accents make no difference."""
    people = People(memory_path)
    people.add_user(ACTOR, "J\u00fcrgen", "viewer")
    with pytest.raises(ConfigError, match="already"):
        people.add_user(ACTOR, "ju\u0308rgen", "viewer")


def test_another_process_is_noticed(memory_path: Path) -> None:
    """What a command changes is valid in a running server after its next check of the file."""
    server, command = People(memory_path), People(memory_path)
    made = command.create_key(ACTOR, "read", instrument="MBE 3")
    assert server.directory.key_with(digest(made)) is None
    assert server.refresh()
    assert server.directory.key_with(digest(made)) is not None
    command.revoke_key(ACTOR, made.key.id[:4])
    assert server.refresh()
    assert server.directory.key_with(digest(made)) is None
    assert digest(made) in server.directory.revoked
    assert not server.refresh()


def test_two_writers_do_not_take_one_name(memory_path: Path) -> None:
    """A writer reads what others wrote before it checks its own change."""
    first, second = People(memory_path), People(memory_path)
    first.add_user(ACTOR, "anna", "viewer")
    with pytest.raises(ConfigError, match="already"):
        second.add_user(ACTOR, "Anna", "viewer")


def test_a_key_ends_with_its_owner_and_follows_their_role(memory_path: Path) -> None:
    """A key never has more rights than its owner has now, and is removed together with the owner."""
    people = People(memory_path)
    people.add_user(ACTOR, "anna", "admin")
    people.add_user(ACTOR, "bob", "operator")
    made = people.create_key(ACTOR, "write", user="bob")
    people.set_user(ACTOR, "bob", role="viewer", projects=(PROJECT,))
    principal = people.directory.of_key(made.key)
    assert principal is not None
    assert (principal.right, principal.projects) == (Right.READ, {PROJECT})
    people.remove_user(ACTOR, "bob")
    assert people.directory.key_with(digest(made)) is None
    again = people.add_user(ACTOR, "bob", "viewer")
    assert again.epoch == 0
    assert People(memory_path).directory.key_with(digest(made)) is None


def test_rotation_has_an_overlap(memory_path: Path) -> None:
    """The old key is valid for the stated time after a rotation, and the new one lives as long as the old one did."""
    now = [1_800_000_000.0]
    people = People(memory_path, clock=lambda: now[0])
    old = people.create_key(ACTOR, "write", instrument="MBE 3", expires=now[0] + 1000)
    now[0] += 100
    new = people.rotate_key(ACTOR, old.key.id, overlap_s=60)
    assert new.key.expires == pytest.approx(now[0] + 1000, abs=0.01)
    for made in (old, new):
        key = people.directory.key_with(digest(made))
        assert key is not None
        assert people.directory.of_key(key) is not None
    now[0] += 61
    key = people.directory.key_with(digest(old))
    assert key is not None
    assert people.directory.of_key(key) is None
    with pytest.raises(ConfigError, match="expired"):
        people.rotate_key(ACTOR, old.key.id)
    people.rotate_key(ACTOR, new.key.id, overlap_s=0)
    assert digest(new) in people.directory.revoked


def test_a_new_password_ends_the_sessions(memory_path: Path, cheap_hash: None) -> None:
    """A session is valid until the password changes, or the person is removed."""
    people = People(memory_path)
    people.add_user(ACTOR, "anna", "admin")
    user = people.add_user(ACTOR, "bob", "viewer", password="correct horse battery")
    holder = people.directory.of_user(user).holder
    assert people.directory.of_holder(holder) is not None
    people.set_user(ACTOR, "bob", role="operator")
    assert people.directory.of_holder(holder) is not None
    changed = people.set_user(ACTOR, "bob", password="another horse battery")
    assert people.directory.of_holder(holder) is None
    holder = people.directory.of_user(changed).holder
    people.remove_user(ACTOR, "bob")
    assert people.directory.of_holder(holder) is None
    assert user.id not in (memory_path / PASSWORDS_FILE).read_text()
    for odd in ("", "user:", "key:", "key:zz", "user:a:b:c", "nobody"):
        assert people.directory.of_holder(odd) is None


def test_a_link_logs_in_once(memory_path: Path) -> None:
    """A login link is valid once and for a short time."""
    now = [1_800_000_000.0]
    people = People(memory_path, clock=lambda: now[0])
    user = people.add_user(ACTOR, "anna", "admin")
    command = People(memory_path, clock=lambda: now[0])
    token = command.link_for(ACTOR, "anna")
    assert people.use_link(ACTOR, "wrong") is None
    assert people.use_link(ACTOR, token) == people.directory.of_user(user).holder
    assert people.use_link(ACTOR, token) is None
    late = command.link_for(ACTOR, "anna", valid_s=60)
    now[0] += 61
    assert people.use_link(ACTOR, late) is None


def test_a_link_that_another_thread_reads_meanwhile(
    memory_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other thread reads the line just before this one would: the link is valid nevertheless."""
    people = People(memory_path)
    user = people.add_user(ACTOR, "anna", "admin")
    token = People(memory_path).link_for(ACTOR, "anna")
    refresh = people.refresh

    def second_reader() -> bool:
        refresh()
        return refresh()

    monkeypatch.setattr(people, "refresh", second_reader)
    assert people.use_link(ACTOR, token) == people.directory.of_user(user).holder


def test_news_are_read_when_they_are_valid(memory_path: Path) -> None:
    """As long as a line is not applied, other threads see that there is something to read, and wait for it."""
    People(memory_path).add_user(ACTOR, "anna", "admin")
    seen: list[bool] = []
    log = PeopleLog(memory_path, lambda entry: seen.append(log.has_news()))
    assert log.refresh()
    assert seen
    assert all(seen)
    assert not log.has_news()


def test_the_log_has_person_and_action(memory_path: Path) -> None:
    """Each change is a line with person, way, address and a sentence; other actions can be noted."""
    people = People(memory_path)
    people.add_user(Actor("root", "command line"), "anna", "admin")
    people.note(Actor("anna", "browser", "10.0.0.7"), "deleted, named 'x'", "some-id")
    lines = [json.loads(line) for line in (memory_path / PEOPLE_FILE).read_text().splitlines()]
    assert lines[0]["done"] == "added anna (admin, all projects)"
    assert [lines[1][name] for name in ("by", "via", "address", "stream")] == [
        "anna",
        "browser",
        "10.0.0.7",
        "some-id",
    ]
    assert [entry.by for entry in people.directory.entries] == ["root", "anna"]


@pytest.mark.parametrize("damage", ["left out", "changed", "not JSON", "cut off", "a folder", "a link"])
def test_a_changed_file_opens_nothing(memory_path: Path, damage: str) -> None:
    """With a line left out or changed nothing in the file is valid: a revoked key would come back otherwise."""
    people = People(memory_path)
    made = people.create_key(ACTOR, "read", instrument="MBE 3")
    other = people.create_key(ACTOR, "read", instrument="MBE 4")
    people.revoke_key(ACTOR, made.key.id)
    people.note(ACTOR, "something")
    path = memory_path / PEOPLE_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    if damage == "left out":
        path.write_bytes(b"".join([*lines[:2], *lines[3:]]))
    elif damage == "changed":
        path.write_bytes(b"".join([lines[0], lines[1].replace(b"MBE", b"XBE"), *lines[2:]]))
    elif damage == "not JSON":
        path.write_bytes(b"".join([*lines[:3], b"\x00\n", *lines[3:]]))
    else:
        assert people.refresh() is False
        path.unlink()
        if damage == "a folder":
            path.mkdir()
        elif damage == "a link":
            (memory_path / "elsewhere").write_bytes(b"".join(lines))
            path.symlink_to(memory_path / "elsewhere")
        else:
            path.write_bytes(b"".join(lines[:2]))
    damaged = people if damage in ("cut off", "a folder", "a link") else People(memory_path)
    damaged.refresh()
    assert "damaged" in damaged.damage
    assert PEOPLE_FILE in damaged.damage
    assert damaged.directory.key_with(digest(other)) is None
    assert not damaged.directory.keys
    with pytest.raises(ConfigError, match="damaged"):
        damaged.add_user(ACTOR, "eve", "admin")


def test_half_a_line_of_a_power_cut_is_dropped(memory_path: Path) -> None:
    """An incomplete line was never acknowledged: the next change overwrites it."""
    people = People(memory_path)
    people.add_user(ACTOR, "anna", "admin")
    with (memory_path / PEOPLE_FILE).open("ab") as file:
        file.write(b'{"at":"2026')
    again = People(memory_path)
    assert not again.damage
    again.add_user(ACTOR, "bob", "viewer")
    assert {user.name for user in People(memory_path).directory.users.values()} == {"anna", "bob"}


def test_a_full_disk_changes_nothing(memory_path: Path) -> None:
    """If the disk refuses a line, the change is not valid, here and after a restart."""

    class Full(FileSystem):
        full = False

        def sync(self, fd: int) -> None:
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")

    disk = Full()
    people = People(memory_path, file_system=disk)
    people.add_user(ACTOR, "anna", "admin")
    disk.full = True
    with pytest.raises(OSError, match="No space"):
        people.create_key(ACTOR, "read", instrument="MBE 3")
    for one in (people, People(memory_path)):
        one.refresh()
        assert not one.directory.keys
    disk.full = False
    people.create_key(ACTOR, "read", instrument="MBE 3")
    assert len(People(memory_path).directory.keys) == 1


def test_a_removed_link_leads_to_no_file(memory_path: Path) -> None:
    """A link in place of the lock is removed and its target is not changed."""
    target = memory_path / "target"
    target.write_text("precious")
    (memory_path / "people.lock").symlink_to(target)
    People(memory_path).add_user(ACTOR, "anna", "admin")
    assert target.read_text() == "precious"


def test_backup_and_check_have_people_and_keys(memory_path: Path, cheap_hash: None) -> None:
    """A backup brings back people, passwords, keys and the audit log; the check names a changed file of them."""
    data = memory_path / "data"
    (data / "streams").mkdir(parents=True)
    people = People(data)
    people.add_user(ACTOR, "anna", "admin", password="correct horse battery")
    made = people.create_key(ACTOR, "read", user="anna")
    (memory_path / "backups").mkdir()
    report = back_up(data, memory_path / "backups")
    restore(report.folder, memory_path / "again")
    again = People(memory_path / "again")
    user = again.directory.user_named("anna")
    assert user is not None
    assert is_password(again.password_hash(user), "correct horse battery")
    assert again.directory.key_with(digest(made)) is not None
    assert check(data).damaged == []
    (data / PEOPLE_FILE).write_bytes((data / PEOPLE_FILE).read_bytes().replace(b"anna", b"eve!", 1))
    (data / PASSWORDS_FILE).write_bytes(b"[]")
    assert [line.split(":")[0] for line in check(data).damaged] == [PEOPLE_FILE, PASSWORDS_FILE]
