import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from typer.testing import CliRunner

from genie.cli import app
from genie.core.actions import NO_ACTION, game_actions
from genie.data.caches import write_latent_actions
from genie.data.episodes import SCHEMA_VERSION
from genie.data.held_out import held_out_prompt, lively_frame
from genie.models.checkpoint import save_model
from genie.models.dynamics import Dynamics
from genie.models.steering import Steering, SteeringConfig
from genie.models.tokenizer import Tokenizer
from genie.reporting.sample import SampleError, dream, parse_actions, world_sheets
from genie.world import WorldModel
from genie.world.controls import arrows_of, write_buttons
from genie.world.maskgit import Sampling
from genie.world.prompts import PromptError, picture_prompt
from tests.configs import dynamics_config, tokenizer_config

ARROWS = arrows_of(game_actions("coinrun").names)

NUM_ACTIONS, CONTEXT, HORIZON = 3, 4, 5
EPISODE_STARTS, NUM_FRAMES = (0, 20, 32), 50
LIVELY = slice(20, 32)
LAM = "fingerprint of the LAM"


def noisy(model):
    """Randomises all weights: in fresh models the last layers are zero, so that actions do not change the dream."""
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3)
    return model


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_tree):
    """Outputs of the pipeline that sampling reads: params, models, held-out frames and their actions."""
    root, rng = tmp_path_factory.mktemp("trained"), np.random.default_rng(0)
    torch.manual_seed(0)
    YAML().dump(tiny_tree | {"evaluate": {**tiny_tree["evaluate"], "horizon": HORIZON}}, root / "params.yaml")
    tokenizer = save_model(root / "data/models/tokenizer", noisy(Tokenizer(tokenizer_config(width=16, num_blocks=1))))
    config = dynamics_config(
        num_actions=NUM_ACTIONS,
        context_frames=CONTEXT,
        width=16,
        num_layers=1,
        num_heads=2,
        tokenizer_fingerprint=tokenizer,
        lam_fingerprint=LAM,
    )
    save_model(root / "data/models/dynamics", noisy(Dynamics(config)))
    save_model(root / "data/models/steering", Steering(SteeringConfig(6, NUM_ACTIONS, lam_fingerprint=LAM)))
    write_buttons(root / "data/models", ARROWS[:NUM_ACTIONS])
    frames = np.zeros((NUM_FRAMES, 64, 64, 3), np.uint8)
    frames[:, 0, 0, 0] = np.arange(NUM_FRAMES)  # too little to count as motion
    frames[LIVELY] = rng.integers(256, size=frames[LIVELY].shape)
    (root / "data/frames/test").mkdir(parents=True)
    with h5py.File(root / "data/frames/test/00000.h5", "w") as file:
        file.attrs.update({"schema_version": SCHEMA_VERSION, "shard": 0, "num_shards": 1})
        file["frames"] = frames
        file["actions"] = np.zeros(NUM_FRAMES, np.uint8)
        file["episode_starts"] = np.array(EPISODE_STARTS, np.int64)
        file["level_seeds"] = np.arange(len(EPISODE_STARTS))
    actions = rng.integers(NUM_ACTIONS, size=NUM_FRAMES).astype(np.uint8)
    actions[[*np.array(EPISODE_STARTS[1:]) - 1, NUM_FRAMES - 1]] = NO_ACTION
    write_latent_actions(root / "data/actions/test.h5", [actions], NUM_FRAMES, fingerprint=LAM, num_actions=NUM_ACTIONS)
    return root


@pytest.fixture
def project(trained, tmp_path, monkeypatch):
    """A copy of `trained` as the working directory."""
    root = shutil.copytree(trained, tmp_path / "project")
    monkeypatch.chdir(root)
    return root


@pytest.fixture
def world(project, tiny_params):
    return WorldModel.load(project / "data/models", Sampling(**tiny_params.sampling.model_dump()))


def genie_sample(*words):
    return CliRunner().invoke(app, ["sample", *map(str, words)])


def fault_of(*words):
    """Runs the command, which must fail; returns its one-line error."""
    ran = genie_sample(*words)
    assert ran.exit_code == 1
    assert ran.stdout == ""
    assert ran.stderr.startswith("genie sample: ")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def panel(path, picture, column):
    """Returns one world's part of a GIF's picture, reduced from three screen pixels per pixel to one."""
    with Image.open(path) as gif:
        gif.seek(picture)
        sheet = np.asarray(gif.convert("RGB"))
    return sheet[22:214:3, 4 + 196 * column :][:, :192:3]


def test_without_actions_every_latent_action_has_a_world(project):
    ran = genie_sample()
    assert ran.exit_code == 0, ran.output
    assert "wrote sample.gif: 3 worlds of 5 frames" in ran.stdout
    assert "dream: 100%" in ran.stderr
    starts = [panel("sample.gif", 0, column) for column in range(NUM_ACTIONS)]
    ends = [panel("sample.gif", HORIZON, column) for column in range(NUM_ACTIONS)]
    assert all(np.array_equal(start, starts[0]) for start in starts)
    assert not any(np.array_equal(ends[a], ends[b]) for a, b in [(0, 1), (0, 2), (1, 2)])


def test_with_actions_the_prompt_comes_first(project):
    ran = genie_sample("--actions", "2,0,1", "--frame", 25, "--out", "one.gif", "--quiet")
    assert (ran.exit_code, ran.output) == (0, "")
    with Image.open("one.gif") as gif:
        assert gif.n_frames == CONTEXT + 3


def test_a_picture_is_a_prompt_of_one_frame(project):
    Image.fromarray(np.random.default_rng(1).integers(256, size=(90, 70, 3), dtype=np.uint8)).save("my.png")
    ran = genie_sample("--actions", "2,0,1", "--image", "my.png", "--out", "one.gif")
    assert "from my.png" in ran.stdout
    with Image.open("one.gif") as gif:
        assert gif.n_frames == 1 + 3


def test_the_same_options_give_the_same_bytes_and_another_seed_does_not(project):
    for name, seed in {"a.gif": 1, "b.gif": 1, "c.gif": 2}.items():
        words = ["--actions", "0,1", "--temperature", 2, "--steps", 1, "--seed", seed, "--out", name]
        assert genie_sample(*words).exit_code == 0
    a, b, c = ((project / name).read_bytes() for name in ("a.gif", "b.gif", "c.gif"))
    assert a == b != c


def test_worlds_part_where_their_actions_do(world):
    prompt = held_out_prompt(25, CONTEXT, LAM)
    one, other = (list(dream(world, prompt, actions, seed=0)) for actions in ([0, 1, 2], [0, 1, 0]))
    assert np.array_equal(one[:2], other[:2])
    assert not np.array_equal(one[2], other[2])


def test_what_is_known_of_the_prompt_is_heeded(world):
    known = held_out_prompt(25, CONTEXT, LAM)
    unknown = held_out_prompt(25, CONTEXT, "another LAM")
    assert unknown.actions is None
    one, other = (list(dream(world, prompt, [0, 1], seed=0)) for prompt in (known, unknown))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("frame", range(NUM_FRAMES))
def test_a_prompt_ends_at_its_frame_and_starts_in_the_same_episode(project, frame):
    prompt = held_out_prompt(frame, CONTEXT, LAM)
    start = max(EPISODE_STARTS[np.searchsorted(EPISODE_STARTS, frame, side="right") - 1], frame + 1 - CONTEXT)
    with h5py.File("data/frames/test/00000.h5") as file, h5py.File("data/actions/test.h5") as cache:
        assert np.array_equal(prompt.frames_THWC, file["frames"][start : frame + 1])
        assert np.array_equal(prompt.actions, cache["latent_actions"][start:frame])
    assert NO_ACTION not in prompt.actions


def test_the_default_frame_is_one_around_which_much_moves(project):
    assert lively_frame(CONTEXT, HORIZON) in range(LIVELY.start + CONTEXT - 1, LIVELY.stop - HORIZON)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "CMYK"])
@pytest.mark.parametrize("size", [(300, 100), (100, 300), (64, 64), (7, 5)])
@pytest.mark.parametrize("frame_size", [64, 96])
def test_a_picture_becomes_its_centre_square(tmp_path, mode, size, frame_size):
    width, height = size
    picture, side = Image.new("RGB", size, "black"), min(size)
    left, top = (width - side) // 2, (height - side) // 2
    picture.paste("white", (left, top, left + side, top + side))
    picture.convert(mode).save(tmp_path / "picture.tiff")
    frames_THWC = picture_prompt(tmp_path / "picture.tiff", (frame_size, frame_size, 3)).frames_THWC
    assert frames_THWC.shape == (1, frame_size, frame_size, 3)
    assert frames_THWC.dtype == np.uint8
    assert frames_THWC.min() == 255


@pytest.mark.parametrize("side", [5000, 10_000, 14_000])  # beyond our limit, Pillow's warning and Pillow's error
def test_a_picture_that_unpacks_without_bound_is_refused(tmp_path, side):
    Image.new("1", (side, side)).save(tmp_path / "bomb.png")
    with pytest.raises(PromptError, match=r"bomb.png: has more than 24 million pixels; scale it down"):
        picture_prompt(tmp_path / "bomb.png", (64, 64, 3))


def test_a_large_photograph_is_decoded_small(tmp_path):
    """The picture is the same, and takes less memory than its full-size pixels would."""
    gradient = Image.linear_gradient("L").resize((8000, 6000)).convert("RGB")
    gradient.save(tmp_path / "large.jpg", quality=95)
    gradient.reduce(8).save(tmp_path / "small.png")
    names = "large.jpg", "small.png"
    large, small = (picture_prompt(tmp_path / name, (64, 64, 3)).frames_THWC.astype(int) for name in names)
    assert np.abs(large - small).max() <= 2
    read = (
        "import resource, sys; from genie.world.prompts import read_picture; read_picture(sys.argv[1], '', (64, 64, 3))"
    )
    peak = "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    peaks = [
        int(subprocess.check_output([sys.executable, "-c", f"{read}; {peak}", tmp_path / name]))
        for name in ("large.jpg", "small.png")
    ]
    assert peaks[0] - peaks[1] < 50_000  # KiB; the full-size pixels take 141,000


def test_what_is_no_picture_is_refused(project):
    (project / "text.png").write_text("no picture")
    Image.fromarray(np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)).save("cut.png")
    (project / "cut.png").write_bytes((project / "cut.png").read_bytes()[:4000])
    assert "text.png: no picture" in fault_of("--image", "text.png")
    assert "cut.png: no picture, or a damaged one" in fault_of("--image", "cut.png")
    assert "data: no picture" in fault_of("--image", "data")
    assert "none.png: no such file" in fault_of("--image", "none.png")


@pytest.mark.parametrize("text", ["3", "0,3", "-1", "0;1", "", "0,", "1.0", "²", "left"])
def test_actions_that_are_none_are_refused(text):
    with pytest.raises(SampleError, match="0 to 2"):
        parse_actions(text, NUM_ACTIONS)


def test_actions_are_parsed():
    assert parse_actions("2, 0,1", NUM_ACTIONS) == [2, 0, 1]


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--actions", "0,7"], "'7' is no latent action; this world has 0 to 2"),
        (["--frame", NUM_FRAMES], "no frame 50: data/frames/test holds frames 0 to 49"),
        (["--frame", -1], "no frame -1"),
        (["--frame", 1, "--image", "my.png"], "--image and --frame exclude each other"),
        (["--out", "world.mp4"], "only GIFs are written"),
        (["--out", "nowhere/world.gif"], "there is no folder nowhere"),
        (["--actions", 0, "--out", "taken.gif"], "taken.gif: cannot be written"),
        (["--world", "nowhere"], "nowhere: no such folder; `genie export --out nowhere` writes one"),
        (["--steps", 0], "sampling.maskgit_steps: Input should be greater than 0, got 0"),
        (["--temperature", -1], "sampling.temperature"),
        (["--seed", -1], "evaluate.seed"),
    ],
)
def test_a_fault_is_one_line(project, words, complaint):
    (project / "taken.gif").mkdir()
    assert complaint in fault_of("--quiet", *words)


def test_without_held_out_frames_a_picture_still_works(project):
    shutil.rmtree("data/frames")
    Image.new("RGB", (64, 64), "red").save("my.png")
    assert "data/frames/test/00000.h5: no such file" in fault_of()
    assert genie_sample("--actions", "0,1", "--image", "my.png").exit_code == 0


def test_a_dreamed_picture_names_its_action():
    frames = np.zeros((2, 64, 64, 3), np.uint8)
    prompt, one, two = world_sheets(frames[:1], frames, [0, 1])
    assert prompt.shape == one.shape
    assert not np.array_equal(prompt, one)
    assert not np.array_equal(one, two)
