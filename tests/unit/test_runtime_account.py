"""The account that Postgres runs as when we are root: found, made, or refused with what to do."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from types import SimpleNamespace

import pytest

from app.runtime import account
from app.runtime.account import Account, make_open, server_account
from app.runtime.errors import RuntimeStateError


@pytest.fixture
def as_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(account.time, "sleep", lambda _: None)


def _entry(uid: int) -> SimpleNamespace:
    return SimpleNamespace(pw_uid=uid, pw_gid=uid)


def _nobody(_: str) -> SimpleNamespace:
    raise KeyError


def _tool(folder: Path, name: str, script: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def test_an_ordinary_user_needs_no_other_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert server_account() is None


def test_the_account_that_is_there_is_taken(as_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda _: _entry(997))

    assert server_account() == Account(997, 997)


def test_an_account_that_is_root_itself_is_refused(as_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pwd, "getpwnam", lambda _: _entry(0))

    with pytest.raises(RuntimeStateError, match="is root itself"):
        server_account()


@pytest.mark.parametrize("program", ["useradd", "adduser"])
def test_an_account_that_is_missing_is_made_by_what_the_system_has(
    as_root: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: str
) -> None:
    _tool(tmp_path, program, f'echo "$@" > {tmp_path}/asked')
    monkeypatch.setattr(account.shutil, "which", lambda name, path: _in(tmp_path, name))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: _entry(997) if (tmp_path / "asked").exists() else _nobody(name))

    made = server_account()

    assert made == Account(997, 997)
    assert (tmp_path / "asked").read_text().split()[-1] == "haulier"


def _in(folder: Path, name: str) -> str | None:
    return str(folder / name) if (folder / name).exists() else None


def test_an_account_that_cannot_be_made_is_an_error_with_the_reason_and_a_way_out(
    as_root: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    _tool(tmp_path, "useradd", "echo 'cannot lock /etc/passwd' >&2; exit 1")
    monkeypatch.setattr(account.shutil, "which", lambda name, path: _in(tmp_path, name))
    monkeypatch.setattr(pwd, "getpwnam", _nobody)

    with pytest.raises(RuntimeStateError, match="useradd: cannot lock /etc/passwd") as refused:
        server_account()

    assert "run as an ordinary user" in (refused.value.hint or "")


def test_a_system_without_any_program_for_it_says_so(as_root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account.shutil, "which", lambda name, path: None)
    monkeypatch.setattr(pwd, "getpwnam", _nobody)

    with pytest.raises(RuntimeStateError, match="neither useradd nor adduser is there"):
        server_account()


def test_a_folder_of_ours_is_open_whatever_the_umask_and_one_that_exists_stays_as_it_is(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    before = os.umask(0o077)
    try:
        make_open(tmp_path / "new")
        make_open(closed)
    finally:
        os.umask(before)

    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o755
    assert closed.stat().st_mode & 0o777 == 0o700
