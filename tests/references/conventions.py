"""The attention of the authors of [L] (Keras) and of CBAM (PyTorch) restated in numpy, from facts about their code.

Their weights go in as they keep them. `gate` gives (weight, slope).
"""

import numpy as np


def weigh(logits, gate):
    return np.vectorize(lambda logit: gate(logit)[0])(logits)


def relu_mlp(vectors, first, first_bias, second, second_bias):
    return np.maximum(vectors @ first + first_bias, 0) @ second + second_bias


def keras_se(x, weights, gate):
    """`x` (N, H, W, C); two dense layers' kernels (in, out) and biases."""
    return x * weigh(relu_mlp(x.mean((1, 2)), *weights), gate)[:, None, None, :]


def keras_cbam(x, weights, gate):
    """As `keras_se`, then the spatial kernel (height, width, in, out), of even padding, over [mean, maximum]."""
    *dense, kernel = weights
    x = x * weigh(relu_mlp(x.mean((1, 2)), *dense) + relu_mlp(x.max((1, 2)), *dense), gate)[:, None, None, :]
    pooled = np.stack([x.mean(3), x.max(3)], axis=3)
    return x * weigh(correlation(pooled, kernel[..., 0]), gate)[..., None]


def correlation(maps, kernel):
    """(N, H, W, 2) and (k, k, 2) to (N, H, W), zeros around."""
    reach = len(kernel) // 2
    padded = np.pad(maps, ((0, 0), (reach, reach), (reach, reach), (0, 0)))
    out = np.empty(maps.shape[:3])
    for i in range(out.shape[1]):
        for j in range(out.shape[2]):
            out[:, i, j] = (padded[:, i : i + len(kernel), j : j + len(kernel)] * kernel).sum((1, 2, 3))
    return out


def cbam_code(x, state, gate, *, spatial=True, pools=("max", "mean")):
    """`x` (N, C, H, W), the state dict of the authors' module; batch norm in evaluation; maximum first."""
    first, second = state["ChannelGate.mlp.1.weight"].T, state["ChannelGate.mlp.3.weight"].T
    mlp = first, state["ChannelGate.mlp.1.bias"], second, state["ChannelGate.mlp.3.bias"]
    logits = sum(relu_mlp(getattr(x, pool)((2, 3)), *mlp) for pool in pools)
    x = x * weigh(logits, gate)[:, :, None, None]
    if not spatial:
        return x
    pooled = np.stack([x.max(1), x.mean(1)], axis=3)
    logits = correlation(pooled, state["SpatialGate.spatial.conv.weight"][0].transpose(1, 2, 0))
    norm = [
        state[f"SpatialGate.spatial.bn.{name}"].item() for name in ("weight", "bias", "running_mean", "running_var")
    ]
    logits = (logits - norm[2]) / np.sqrt(norm[3] + 1e-5) * norm[0] + norm[1]
    return x * weigh(logits, gate)[:, None]
