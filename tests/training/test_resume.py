import os
import resource

import pytest
import torch
from accelerate.utils import DynamoBackend

from genie.core.paths import project_root
from genie.training import resume
from genie.training.resume import ResumeError, ResumeStore

STATE = {"step": 3, "model": {"weight": torch.arange(4.0)}, "curve": [{"train_loss": 0.5}]}


@pytest.fixture
def open_store(tiny_params, accelerator):
    def open_store(stage="train_lam", params=None, inputs=None):
        return ResumeStore(stage, params or tiny_params.lam.of_kind(), accelerator, inputs or {"frames": "a"})

    return open_store


def test_nothing_is_found_where_nothing_was_saved(open_store):
    assert open_store().load() is None


def test_a_state_is_found_again(open_store):
    open_store().save({"step": 1})
    open_store().save(STATE)
    found = open_store().load()
    assert torch.equal(found["model"].pop("weight"), STATE["model"]["weight"])
    assert found == {**STATE, "model": {}}


def test_a_state_is_never_used_for_another_run(open_store, tiny_params, accelerator, monkeypatch):
    open_store().save(STATE)
    assert open_store(stage="train_dynamics").load() is None
    assert open_store(inputs={"frames": "b"}).load() is None
    params = tiny_params.lam.of_kind()
    for name, value in params.model_dump().items():
        changed = params.model_copy(update={name: value + 1})
        found = open_store(params=changed).load()
        assert (found is None) != name.startswith("gate_"), name
    for part, name, value in [
        (accelerator.state, "_mixed_precision", "bf16"),
        (accelerator.state.dynamo_plugin, "backend", DynamoBackend.INDUCTOR),
    ]:
        with monkeypatch.context() as changed:
            changed.setattr(part, name, value)
            assert open_store().load() is None


def test_a_cleared_state_is_gone(open_store):
    store = open_store()
    store.save(STATE)
    store.clear()
    assert store.load() is None
    store.clear()


def test_a_fault_while_saving_keeps_the_state_before(open_store):
    store = open_store()
    store.save(STATE)
    with pytest.raises(Exception, match=r"pickle|local object"):
        store.save({"step": 4, "model": lambda: None})
    assert store.load()["step"] == 3


def test_an_experiment_in_a_copy_finds_the_state_of_its_project(open_store, tmp_path, monkeypatch):
    (tmp_path / "copy").mkdir()
    open_store().save(STATE)
    monkeypatch.chdir(tmp_path / "copy")
    assert open_store().load() is None
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    assert open_store().load()["step"] == 3
    assert project_root() == tmp_path.resolve()
    assert not (tmp_path / "copy/.cache/resume").exists()


def test_a_full_disk_is_one_oserror_and_keeps_the_state_before(open_store):
    """A file size limit stands in for a full disk: writes fail in the same way."""
    store = open_store()
    store.save(STATE)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            store.save({"step": 4, "model": torch.zeros(10_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert store.load()["step"] == 3
    assert os.listdir(store.folder) == ["state.pt"]


@pytest.mark.parametrize(
    "spoil", [lambda path: path.write_bytes(path.read_bytes()[:100]), lambda path: path.write_text("")]
)
def test_a_damaged_state_is_one_line_that_names_it(open_store, spoil):
    store = open_store()
    store.save(STATE)
    spoil(store.path)
    with pytest.raises(ResumeError, match=r"state.pt: damaged .*; remove it to train from the start$") as fault:
        store.load()
    assert "\n" not in str(fault.value)


def test_a_state_of_another_version_is_never_used(open_store, monkeypatch):
    store = open_store()
    store.save(STATE)
    monkeypatch.setattr(resume, "VERSION", resume.VERSION + 1)
    with pytest.raises(ResumeError, match=rf"of version {resume.VERSION - 1}, but this code reads {resume.VERSION}"):
        store.load()
    assert store.path.exists()
