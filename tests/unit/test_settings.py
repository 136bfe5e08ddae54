"""Settings: which source wins, and what a value that cannot be used is answered with."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.settings import SettingsError, explain, from_env


@pytest.mark.feature("S4-81")
def test_a_flag_wins_over_the_environment_the_environment_over_the_file_and_the_file_over_the_default(
    tmp_path: Path,
) -> None:
    file = tmp_path / ".env"
    file.write_text("HAULIER_LANES=3\nHAULIER_PORT=1001\nHAULIER_WEB_PROCESSES=5\n")
    environ = {"HAULIER_PORT": "1002", "HAULIER_WEB_PROCESSES": "6"}

    settings = from_env(environ, env_file=file, flags={"web_processes": 7, "host": None})

    assert (settings.lanes, settings.port, settings.web_processes) == (3, 1002, 7)
    assert settings.host == "127.0.0.1"


@pytest.mark.feature("S4-23", "S4-70", "S4-80")
def test_the_documents_names_work_without_a_prefix_and_lose_to_those_with_one() -> None:
    bare = {"PARALLEL_JOBS": "7", "S3_UPLOAD_FILE_PATH_PREFIX": "/in/", "BATCH_SIZE_FOR_INSERTION": "50"}

    alone = from_env(bare, env_file=None)
    both = from_env({**bare, "HAULIER_PARALLEL_JOBS": "9"}, env_file=None)

    assert (alone.data_slots, alone.s3_upload_file_path_prefix, alone.connectra_batch_rows) == (7, "in", 50)
    assert both.data_slots == 9


@pytest.mark.feature("S4-70", "S4-77")
def test_an_empty_variable_is_one_that_is_not_set() -> None:
    settings = from_env({"HAULIER_PORT": "", "PARALLEL_JOBS": ""}, env_file=None)

    assert (settings.port, settings.data_slots, settings.connectra_batch_rows) == (8600, 4, 500)


def test_lists_are_given_with_commas() -> None:
    environ = {"HAULIER_S3_ALLOWED_BUCKETS": "a, b,,", "HAULIER_ALLOW_PRIVATE_HOSTS": "10.0.0.0/8,::1/128"}

    settings = from_env(environ, env_file=None)

    assert settings.s3_allowed_buckets == {"a", "b"}
    assert [str(network) for network in settings.private_networks] == ["10.0.0.0/8", "::1/128"]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("HAULIER_PORT", "many"),
        ("HAULIER_LEASE_S", "0"),
        ("HAULIER_LOG_LEVEL", "LOUD"),
        ("HAULIER_ALLOW_PRIVATE_HOSTS", "10.0.0.0/33"),
        ("HAULIER_ERROR_BUDGET_RATE", "1.5"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_with_its_source_and_what_came(variable: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        from_env({variable: value}, env_file=None)

    assert str(refused.value).startswith(f"{variable} (environment {variable}): ")
    assert value in str(refused.value)


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(SettingsError) as refused:
        from_env({"HAULIER_PORT": "-1"}, env_file=None, flags={"lanes": 99})

    assert "HAULIER_PORT (environment HAULIER_PORT): " in str(refused.value)
    assert "HAULIER_LANES (flag): " in str(refused.value)


@pytest.mark.feature("S4-81")
def test_no_secret_is_shown_when_settings_are_explained() -> None:
    environ = {
        "HAULIER_DATABASE_URL": "postgresql://u:hush@h/d",
        "HAULIER_S3_SECRET_ACCESS_KEY": "hush",
        "HAULIER_S3_ALLOWED_BUCKETS": "b,a",
    }

    shown = {one.name: one for one in explain(environ, env_file=None)}

    assert "hush" not in repr(shown)
    assert shown["s3_allowed_buckets"].value == "a,b"
    assert (shown["s3_endpoint"].value, shown["s3_endpoint"].source) == ("", "default")
