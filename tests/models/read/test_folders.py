"""Which file of a folder holds the weights."""

import pytest

from edgerecover.errors import BadInputError
from edgerecover.models.read.folders import weights_in


def folder_of(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (("model.safetensors", "pytorch_model.bin", "config.json"), "model.safetensors"),
        (("pytorch_model.bin", "training_args.bin", "epoch-3.pt"), "pytorch_model.bin"),
        (("model.safetensors.index.json", "model-00001-of-00002.safetensors"), "model.safetensors.index.json"),
        (("best.ckpt", "log.txt", "optimizer.pt"), "best.ckpt"),
    ],
)
def test_the_weights_of_a_folder(tmp_path, names, chosen):
    assert weights_in(folder_of(tmp_path, *names)) == tmp_path / chosen


def test_a_file_and_a_folder_of_torch_distributed_are_themselves(tmp_path):
    assert weights_in(tmp_path / "no-such.pt") == tmp_path / "no-such.pt"
    assert weights_in(folder_of(tmp_path, ".metadata", "__0_0.distcp")) == tmp_path


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (("a.pt", "b.pth"), "several weight files: a.pt, b.pth"),
        (("README.md",), "a folder without weights"),
        (("saved_model.pb", "variables/x"), "a TensorFlow SavedModel"),
        (("Manifest.json", "Data/x"), "a Core ML package"),
        (("latest", "global_step5/zero_pp_rank_0_mp_rank_00_optim_states.pt"), "DeepSpeed ZeRO"),
        (("mp_rank_00_model_states.pt", "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"), "DeepSpeed ZeRO"),
    ],
)
def test_folders_that_cannot_be_used_are_named(tmp_path, names, part):
    with pytest.raises(BadInputError, match=part) as caught:
        weights_in(folder_of(tmp_path, *names))
    assert caught.value.hint
