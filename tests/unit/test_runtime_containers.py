"""The compose file runs what the Procfile names, each in a container that becomes its role."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.runtime.role import command_of
from app.runtime.supervisor import procfile
from config.settings import Settings, variable_of

_ROOT = Path(__file__).parents[2]
_NAMES = [program.name for program in procfile()]
_STORES = {"postgres", "valkey", "s3"}


@pytest.fixture
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["services"]
    return found


@pytest.mark.feature("S4-76")
def test_compose_runs_the_stores_and_every_process_of_the_procfile(services: dict[str, Any]) -> None:
    assert set(services) == _STORES | {"setup"} | set(_NAMES)


@pytest.mark.feature("S4-75", "S4-76")
@pytest.mark.parametrize("name", _NAMES)
def test_each_process_is_its_role_restarts_and_waits_for_the_database(services: dict[str, Any], name: str) -> None:
    service = services[name]

    assert service["environment"]["RUN_COMMAND"] == name
    assert service["restart"] == "unless-stopped"
    assert service["depends_on"] == {"setup": {"condition": "service_completed_successfully"}}


def test_stores_restart_and_are_waited_for_until_they_answer(services: dict[str, Any]) -> None:
    for name in _STORES:
        assert services[name]["restart"] == "unless-stopped"
        assert services[name]["healthcheck"]["test"]
        assert services["setup"]["depends_on"][name] == {"condition": "service_healthy"}


def test_compose_sets_only_settings_that_exist(services: dict[str, Any]) -> None:
    known = {variable_of(name) for name in Settings.model_fields} | {"RUN_COMMAND", "HAULIER_FLOWER_ADDRESS"}

    for name in _NAMES:
        assert set(services[name]["environment"]) <= known


def test_published_ports_are_for_this_machine_only(services: dict[str, Any]) -> None:
    published = [port for service in services.values() for port in service.get("ports", [])]

    assert published
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_every_volume_of_a_store_is_kept(services: dict[str, Any]) -> None:
    kept = yaml.safe_load((_ROOT / "docker-compose.yml").read_text())["volumes"]

    assert {services[name]["volumes"][0].split(":")[0] for name in _STORES} == set(kept)


@pytest.mark.parametrize("name", _NAMES)
def test_a_name_of_the_procfile_becomes_its_command(name: str) -> None:
    command = {program.name: program.command for program in procfile()}[name]

    assert command_of([name]) == ["/bin/sh", "-c", f"exec {command}"]


@pytest.mark.feature("S4-75")
def test_other_words_become_a_haulier_command() -> None:
    assert command_of(["jobs", "first_time"]) == ["haulier", "jobs", "first_time"]


def test_a_role_replaces_the_process_and_finds_our_programs_without_a_path() -> None:
    told = subprocess.run(
        [sys.executable, "-m", "app.runtime.role", "--version"], capture_output=True, text=True, check=True, env={}
    )

    assert told.stdout.startswith("haulier, version ")


def test_no_role_is_refused_with_the_names_there_are() -> None:
    told = subprocess.run([sys.executable, "-m", "app.runtime.role"], capture_output=True, text=True, check=False)

    assert told.returncode == 1
    assert "one of web, engine, worker" in told.stderr


@pytest.mark.feature("S4-75")
def test_the_images_command_splits_the_role_into_words() -> None:
    line = next(line for line in (_ROOT / "Dockerfile").read_text().splitlines() if line.startswith("CMD"))
    command = yaml.safe_load(line.removeprefix("CMD "))
    command[2] = command[2].replace("python -m app.runtime.role", "printf '<%s>'")

    told = subprocess.run(command, capture_output=True, text=True, check=True, env={"RUN_COMMAND": "jobs first_*"})

    assert told.stdout == "<jobs><first_*>"
