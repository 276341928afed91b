"""The maths once more, in float64 NumPy and plain loops: slow, and easy to compare with the equations."""

import numpy as np


def inverse_frequencies(head_dim, base):
    return np.array([float(base) ** (-2 * j / head_dim) for j in range(head_dim // 2)])


def rotate(x, angles, interleaved=False):
    """Each pair, seen as a complex number, times exp(i angle); `angles` is [B, S, N, R]."""
    x, angles = np.asarray(x, np.float64), np.asarray(angles, np.float64)
    result = np.empty_like(x)
    pairs = x.shape[-1] // 2
    for j in range(pairs):
        real, imaginary = (2 * j, 2 * j + 1) if interleaved else (j, j + pairs)
        rotated = (x[..., real] + 1j * x[..., imaginary]) * np.exp(1j * angles[..., j])
        result[..., real], result[..., imaginary] = rotated.real, rotated.imag
    return result


def calendar_features(day, second, start_day, span_days, clamp=True):
    time = np.asarray(day, np.float64) * 86_400 + np.asarray(second, np.float64)
    elapsed_days = np.asarray(day, np.float64) - start_day + np.asarray(second, np.float64) / 86_400
    day_phase = 2 * np.pi * (time % 86_400) / 86_400
    week_phase = 2 * np.pi * (time % 604_800) / 604_800
    offset = 2 * elapsed_days / span_days - 1
    offset = np.clip(offset, -1, 1) if clamp else offset
    return np.stack([np.cos(day_phase), np.sin(day_phase), np.cos(week_phase), np.sin(week_phase), offset], axis=-1)


def siren(params, features, omega0):
    activations = {"sine": lambda x: np.sin(omega0 * x), "relu": lambda x: np.maximum(x, 0)}
    total = 0.0
    for branch, layers in params.items():
        x = np.asarray(features, np.float64)
        for index, layer in enumerate(layers):
            x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
            if index + 1 < len(layers):
                x = activations[branch](x)
        total = total + x
    return total


def sees(segment_ids, times, row, i):
    """The earlier events of its own segment that event i sees, those of its own time left out."""
    return [
        j
        for j in range(i)
        if segment_ids[row, i] != 0
        and segment_ids[row, j] == segment_ids[row, i]
        and (times is None or times[row, j] < times[row, i])
    ]


def attention(query, key, value, segment_ids, no_history, scale, times=None, cotangent=None):
    """Strictly causal attention; with a cotangent also the gradients of query, key, value and no_history."""
    query, key, value, no_history = (np.asarray(x, np.float64) for x in (query, key, value, no_history))
    batch, length, heads, _ = query.shape
    result = np.empty(value.shape)
    gradients = [np.zeros_like(x) for x in (query, key, value, no_history)]
    for row in range(batch):
        for i in range(length):
            visible = sees(segment_ids, times, row, i)
            for n in range(heads):
                if not visible:
                    result[row, i, n] = no_history[n]
                    if cotangent is not None:
                        gradients[3][n] += cotangent[row, i, n]
                    continue
                logits = scale * key[row, visible, n] @ query[row, i, n]
                weights = np.exp(logits - logits.max())
                weights /= weights.sum()
                result[row, i, n] = weights @ value[row, visible, n]
                if cotangent is None:
                    continue
                of_weights = value[row, visible, n] @ cotangent[row, i, n]
                of_logits = scale * weights * (of_weights - weights @ of_weights)
                gradients[0][row, i, n] += of_logits @ key[row, visible, n]
                gradients[1][row, visible, n] += np.outer(of_logits, query[row, i, n])
                gradients[2][row, visible, n] += np.outer(weights, cotangent[row, i, n])
    return result if cotangent is None else (result, gradients)
