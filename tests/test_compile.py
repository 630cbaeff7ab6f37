"""torch.compile takes gates and layers whole; in a process without the tests' shape checks, which it cannot trace."""

import subprocess
import sys

SCRIPT = """
import torch
from heedful import LAYERS, attend, ign1, ign2, ign3
torch._dynamo.config.recompile_limit = 64
num_checked = 0
for gate in (attend, ign1(0.5), ign2, ign3):
    x = torch.randn(2, 8, 5, 4)
    torch.testing.assert_close(torch.compile(gate, fullgraph=True, backend="aot_eager")(x), gate(x))
    for layer in LAYERS.values():
        module = layer(8, gate=gate)
        torch.testing.assert_close(torch.compile(module, fullgraph=True, backend="aot_eager")(x), module(x))
        num_checked += 1
print(num_checked)
"""

NETWORKS = """
import torch
from heedful import build
x = torch.randn(2, 3, 16, 16)
for variant in ("pay2-pc", "pay2-dp-indep", "se+pay3-additive-ign1(0.5)"):
    model = build("cifar_resnet8", variant, num_classes=3)
    for each in (model.train(), model.eval()):
        torch._dynamo.reset()
        torch.manual_seed(0)
        compiled = torch.compile(each, fullgraph=True, backend="aot_eager")(x)
        if not each.training:
            torch.testing.assert_close(compiled, each(x))
        compiled.logsumexp(1).sum().backward()
"""


def test_gates_and_layers_compile_without_a_graph_break():
    from heedful import LAYERS

    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == 4 * len(LAYERS)


def test_networks_that_pay_attention_compile_without_a_graph_break():
    done = subprocess.run([sys.executable, "-c", NETWORKS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
