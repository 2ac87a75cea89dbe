"""`delrec push` makes one commit on the hub, `load` fetches it from there, and what the hub refuses is one clear line."""

import json
import pickle
import shutil
import subprocess
import sys
from os import environ

import huggingface_hub
import pytest
from compiling import QUICK_ENVIRONMENT
from hub_fake import environment
from same_answers import assert_same_answers
from tiny_storefront import delrec

import delrec_jax
from delrec_jax.errors import UserError
from delrec_jax.hub.fetched import fetch
from delrec_jax.hub.push import push
from delrec_jax.serving.recommender import Recommender

REPO = "ann/shop"


class Opened:
    """Leaves a trace when it is unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemError('a pickle was opened')",))


@pytest.fixture
def pushed(hub, shared_folder):
    push(shared_folder, REPO)
    return hub


def test_from_workdir_to_hub_and_back(hub, tiny_run, capsys):
    delrec("push", f"--workdir={tiny_run}", f"--repo={REPO}", "--private")
    assert f"{hub.endpoint}/{REPO}/commit/" in capsys.readouterr().err
    assert hub.repos[REPO]["private"]
    run, shared = delrec_jax.load(tiny_run), delrec_jax.load(REPO)
    assert {"teacher", "hybrid(delrec+teacher)", "lm_no_prompt"} <= set(shared.systems)
    assert_same_answers(run, shared, k=10)
    asked = list(run.titles[:2])
    assert shared.recommend(asked).equals(run.recommend(asked))
    assert shared.histories == {}


def test_the_commands_in_processes_of_their_own(hub, shared_folder, tmp_path):
    def command(*arguments):
        kept = {key: value for key, value in environ.items() if not key.startswith("HF_")}
        program = [sys.executable, "-m", "delrec_jax.cli", *arguments]
        given = {**kept, **QUICK_ENVIRONMENT, **environment(hub, tmp_path)}
        run = subprocess.run(
            program, env=given, capture_output=True, text=True, check=False, timeout=300
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    command("push", f"--folder={shared_folder}", f"--repo={REPO}")
    first = json.loads((shared_folder / "catalogue.json").read_text())["titles"][0]
    found = command("recommend", f"--from={REPO}", f"--history={first}", "-k", "3")
    assert "DELRec" in found and "SASRec" in found
    kept = (tmp_path / "cache" / "models--ann--shop" / "snapshots").iterdir()
    assert (next(kept) / "delrec.json").is_file()


def test_only_what_is_listed_is_fetched_and_no_pickle(pushed, tmp_path):
    pushed.change(
        REPO, pytorch_model__bin=pickle.dumps(Opened()), modeling__py=b"raise SystemError"
    )
    folder = fetch(REPO)
    listed = {"delrec.json", *json.loads((folder / "delrec.json").read_text())["files"]}
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found == listed == pushed.fetched()
    delrec_jax.load(REPO)


def test_an_older_commit_and_no_network(pushed, shared_folder, monkeypatch):
    first = pushed.repos[REPO]["commits"][-1][0]
    pushed.change(REPO, delrec__json=b"{}")
    with pytest.raises(UserError, match="no format number"):
        delrec_jax.load(REPO)
    delrec_jax.load(REPO, revision=first)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert delrec_jax.load(REPO, revision=first).main == "delrec"
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set, and the hub's cache does not"):
        delrec_jax.load("ann/other")


def test_a_new_model_takes_the_place_of_the_old_one(pushed, shared_folder):
    pushed.change(REPO, teachers_old__json=b"{}", README__md=b"words of the owner")
    before = len(pushed.repos[REPO]["commits"])
    push(shared_folder, REPO)
    files = pushed.files(REPO)
    assert len(pushed.repos[REPO]["commits"]) == before + 1, "one commit"
    listed = json.loads(files["delrec.json"])["files"]
    assert set(files) == {".gitattributes", "README.md", "delrec.json", *listed}
    card = files["README.md"].decode()
    assert f'delrec.load("{REPO}")' in card and "USER/NAME" not in card


@pytest.mark.parametrize(
    ("files", "private", "message"),
    [
        (
            {"model.safetensors": b"x"},
            False,
            r"holds something else already \(model\.safetensors\)",
        ),
        ({}, True, "exists and is public, so --private cannot hold"),
    ],
)
def test_a_repository_that_is_not_written_to(hub, shared_folder, files, private, message):
    hub.make(REPO, files)
    with pytest.raises(UserError, match=rf"--repo={REPO}: {message}"):
        push(shared_folder, REPO, private=private)
    assert len(hub.repos[REPO]["commits"]) == 1


def test_a_readme_alone_is_no_obstacle(hub, shared_folder):
    hub.make(REPO, {"README.md": b"soon"})
    push(shared_folder, REPO)
    assert "delrec.json" in hub.files(REPO)


@pytest.mark.parametrize(
    ("pattern", "status", "message"),
    [
        ("POST /api/repos/create", 403, "the hub denies this"),
        ("POST /api/repos/create", 500, "the hub answers with the status 500: try again later"),
        ("PUT /lfs/.*", 403, "the hub denies this"),
        ("POST .*/commit/main", 500, "the hub answers with the status 500: try again later"),
        ("POST .*/commit/main", 412, "somebody else changed it at the same time"),
    ],
)
def test_what_the_hub_refuses_to_take(hub, shared_folder, pattern, status, message):
    hub.refuse(pattern, status)
    with pytest.raises(UserError, match=f"--repo={REPO}: {message}") as error:
        push(shared_folder, REPO)
    assert "\n" not in str(error.value)
    assert "delrec.json" not in (hub.files(REPO) if REPO in hub.repos else {})


@pytest.mark.parametrize(
    ("token", "message"),
    [
        (None, "no token for the hub: run `hf auth login`, or set HF_TOKEN"),
        ("hf_wrong", "the hub refuses the token: run `hf auth login` with a valid one"),
    ],
)
def test_a_token_that_is_missing_or_wrong(hub, shared_folder, monkeypatch, token, message):
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(UserError, match=f"--repo={REPO}: {message}"):
        push(shared_folder, REPO)
    assert hub.repos == {}


def test_no_hub(hub, shared_folder, monkeypatch):
    constants, nobody = huggingface_hub.constants, "http://127.0.0.1:9"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub.endpoint, nobody)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", nobody)
    for ask in (lambda: push(shared_folder, REPO), lambda: delrec_jax.load(REPO)):
        with pytest.raises(UserError, match="the hub cannot be reached, or broke off: check the"):
            ask()


def test_a_damaged_folder_is_not_uploaded(hub, shared_folder, tmp_path):
    folder = shutil.copytree(shared_folder, tmp_path / "folder")
    (folder / "results.json").write_text("[]")
    with pytest.raises(UserError, match=r"results\.json: damaged or changed"):
        push(folder, REPO)
    assert hub.log == []


def test_without_its_card_nothing_is_made_on_the_hub(hub, shared_folder, tmp_path):
    folder = shutil.copytree(shared_folder, tmp_path / "folder")
    (folder / "README.md").unlink()
    with pytest.raises(UserError, match=r"README\.md: cannot be read"):
        push(folder, REPO)
    assert hub.log == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"systems__safetensors": b"short"}, r"systems\.safetensors: damaged or changed"),
        ({"config__json": None}, r"config\.json: not there, although delrec\.json lists it"),
        ({"delrec__json": None}, "not a model that `delrec push` put there"),
        ({"delrec__json": b"<html>"}, r"delrec\.json: cannot be read"),
    ],
)
def test_a_repository_that_is_damaged(pushed, change, message):
    pushed.change(REPO, **change)
    with pytest.raises(UserError, match=message) as error:
        delrec_jax.load(REPO)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "refusal", "revision", "message"),
    [
        ("ann/nothing", None, None, "no such folder here, and no such repository on the hub"),
        (REPO, ("HEAD .*", 403, {"X_Error_Code": "GatedRepo"}), None, "the hub denies this"),
        (REPO, ("HEAD .*", 500, {}), None, "the hub answers with the status 500"),
        (REPO, None, "no-branch", "no such revision of it on the hub"),
    ],
)
def test_what_the_hub_refuses_to_give(pushed, name, refusal, revision, message):
    if refusal:
        pushed.refuse(*refusal[:2], **refusal[2])
    with pytest.raises(UserError, match=f"{name}: .*{message}") as error:
        delrec_jax.load(name, revision=revision)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["push", "--repo=shop"], "--workdir is missing"),
        (["push", "--folder=x", "--repo=shop"], "--repo=shop: give USER/NAME"),
        (["push", "--folder=x", "--workdir=y"], "--folder=x: give no --workdir"),
        (["push", "--folder=x", "--titles=no"], "--folder=x: --titles, --license and --base are"),
        (["recommend", "--from=a/b", "--config=x"], "--from=a/b: give no --workdir"),
        (["tune", "--from=a/b"], "--from is read by recommend, rank only"),
        (["tune", "--folder=a"], "--folder is read by push only"),
        (["rank", "--revision=v1"], "--revision=v1: give --from"),
        (["recommend", "--from=a b"], "a b: no such folder, and not USER/NAME"),
    ],
)
def test_flags_that_do_not_go_together(hub, capsys, arguments, message):
    with pytest.raises(SystemExit) as ended:
        delrec(*arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err


def test_a_workdir_is_still_a_workdir(tiny_run):
    assert isinstance(delrec_jax.load(tiny_run), Recommender)
    with pytest.raises(UserError, match="revision, base and titles are for shared models"):
        delrec_jax.load(tiny_run, revision="v1")
