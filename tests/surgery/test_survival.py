"""What is done to a network after attention went in: it stays in, or the doing is refused."""

import copy
import subprocess
import sys

import pytest
import torch
import torchvision
from torch import nn
from torch.fx.experimental.optimization import fuse

from heedful import InputError, attach, audit, detach
from tests.surgery.networks import Residual

VARIANTS = ["cbam", "se+aw"]


def attached(variant, model=None):
    torch.manual_seed(0)
    model = (model or torchvision.models.resnet18(num_classes=3)).eval()
    attach(model, variant, start="paper")
    return model


def images(number=2):
    return torch.randn(number, 3, 32, 32)


@pytest.mark.parametrize("variant", VARIANTS)
def test_fusing_convolution_and_norm_keeps_the_attention(variant):
    model, x = attached(variant), images()
    fused = fuse(copy.deepcopy(model))
    torch.testing.assert_close(fused(x), model(x), rtol=1e-4, atol=1e-5)
    assert len(audit(fused, x)) == len(audit(model, x))


@pytest.mark.filterwarnings("ignore:torch.ao.quantization is deprecated")
@pytest.mark.parametrize("variant", ["cbam", "srm"])
def test_conversions_that_would_lose_it_are_refused(variant):
    model = attached(variant)
    with pytest.raises(InputError, match=r"cannot be converted \(SyncBatchNorm, quantisation\)"):
        nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(model))
    with pytest.raises(InputError, match="cannot be converted"):
        torch.ao.quantization.prepare(copy.deepcopy(model))
    from timm.layers import convert_sync_batchnorm

    with pytest.raises(InputError, match="cannot be converted"):
        convert_sync_batchnorm(copy.deepcopy(model))


def test_what_was_converted_before_takes_attention():
    model = nn.SyncBatchNorm.convert_sync_batchnorm(torchvision.models.resnet18(num_classes=3)).eval()
    x = images()
    expected = model(x)
    attach(model, "cbam")
    assert torch.equal(model(x), expected)
    assert isinstance(model.layer1[0].bn2, nn.SyncBatchNorm)
    detach(model)
    nn.SyncBatchNorm.convert_sync_batchnorm(model)


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_programs_take_any_batch(variant):
    model, x = attached(variant), images()
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    for number in (1, 2, 5):
        x = images(number)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("variant", VARIANTS)
def test_autocast_and_channels_last(variant):
    model, x = attached(variant), images()
    expected = model(x)
    torch.testing.assert_close(
        model.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last)),
        expected,
        rtol=1e-4,
        atol=1e-4,
    )
    model.train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(x).float().square().sum()
    loss.backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_moving_average_copies_follow():
    from timm.utils import ModelEmaV3

    model = attached("se")
    average = ModelEmaV3(model, decay=0.5)
    with torch.no_grad():
        model.layer1[0].bn2.attention.mlp[0].weight.add_(1)
    before = average.module.layer1[0].bn2.attention.mlp[0].weight.clone()
    average.update(model)
    torch.testing.assert_close(average.module.layer1[0].bn2.attention.mlp[0].weight, before + 0.5)
    swa = torch.optim.swa_utils.AveragedModel(model)
    swa.update_parameters(model)
    torch.testing.assert_close(swa(images()).shape, torch.Size([2, 3]))


def test_checkpointed_blocks_have_the_same_gradients():
    from torch.utils.checkpoint import checkpoint

    model, x = attached("cbam").train(), images(4)
    twin = copy.deepcopy(model)

    def through(network, stage):
        block = network.layer1[0]
        stem = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        (checkpoint(block, stem, use_reentrant=False) if stage else block(stem)).square().sum().backward()
        return [p.grad for p in block.parameters()]

    for mine, other in zip(through(model, True), through(twin, False), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


def test_data_parallel_training_reaches_the_attention(tmp_path):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = Residual()
        attach(model, "cbam", start="paper")
        parallel = nn.parallel.DistributedDataParallel(model)
        parallel(torch.randn(2, 1, 8, 8)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        assert any(key.startswith("module.stage1.0.bn.attention.") for key in parallel.state_dict())
    finally:
        dist.destroy_process_group()


COMPILED = """
import torch, torchvision, heedful
for variant in ("cbam", "se-ign1(learned)+aw"):
    torch.manual_seed(0)
    model = torchvision.models.resnet18(num_classes=3).eval()
    heedful.attach(model, variant, start="paper")
    x = torch.randn(2, 3, 32, 32)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    compiled(x).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())
print("done")
"""


def test_compiles_without_a_graph_break():
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "done", done.stderr
