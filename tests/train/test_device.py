import pytest
import torch

from cache.errors import ConfigError
from train.device import memory_advice, resolve_device


@pytest.mark.parametrize("name", ["tpu7", "meta", "xpu", "cuda:-1", "cuda:", "cuda:63", "", "CPU"])
def test_a_device_that_is_unknown_or_not_here_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="device"):
        resolve_device(name)


def test_mps_is_asked_for_its_presence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'mps' is not here"):
        resolve_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("mps").type == "mps"


def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for present, expected in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda present=present: present)
        assert resolve_device("auto").type == expected


def test_fp32_means_fp32_from_then_on() -> None:
    torch.backends.cudnn.allow_tf32 = True
    resolve_device("cpu")
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cuda.matmul.allow_tf32


def test_memory_that_ran_out_is_an_error_with_a_way_out() -> None:
    with (
        pytest.raises(ConfigError, match=r"ran out of memory \(CUDA out of memory\)\. Buy more"),
        memory_advice("Buy more"),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")


def test_other_errors_of_torch_pass_through() -> None:
    with pytest.raises(RuntimeError, match="shape"), memory_advice(""):
        raise RuntimeError("shape")
