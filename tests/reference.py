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
    params = getattr(params, "branches", params)
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


def sees(
    segment_ids,
    times,
    row,
    i,
    key_segment_ids=None,
    key_times=None,
    *,
    inclusive=False,
    window=None,
    sinks=0,
    hide_within=0,
):
    """The events that event i sees: the earlier ones of its own segment, those of its own time left out; or the
    events of another sequence before its time. If inclusive, itself too, or those of its own time. Of these, with a
    window, only the latest, by time and then by slot, and the first of the segment. An event is there from
    `hide_within` after its time on, if that is above 0."""
    own = key_segment_ids is None
    others = segment_ids if own else key_segment_ids
    if segment_ids[row, i] == 0:
        return []
    time, of_keys = i, np.broadcast_to(np.arange(others.shape[1]), others.shape)
    if times is not None:
        time, of_keys = times[row, i], np.int64(times if own else key_times) + max(hide_within - 1, 0)
    of_segment = [j for j in range(others.shape[1]) if others[row, j] == segment_ids[row, i]]
    in_order = sorted(of_segment, key=lambda j: (of_keys[row, j], j))
    before = [j for j in in_order if of_keys[row, j] < time or (inclusive and not own and of_keys[row, j] == time)]
    latest = in_order
    if window is not None:
        first = len(before) + (inclusive and own) - window
        latest = [j for rank, j in enumerate(in_order) if rank >= first or rank < sinks]
    seen = {j for j in before if j in latest and (j < i or not own)}
    return sorted(seen | ({i} if inclusive and own else set()))


def attention(
    arrays,
    segment_ids,
    scale,
    times=None,
    cotangent=None,
    *,
    buckets=None,
    key_segment_ids=None,
    key_times=None,
    **how,
):
    """Strictly causal attention; with a cotangent also the gradient of each array, by name.

    `arrays` holds query, key, value, no_history, and may hold the tables of a bias [N, T] and of relative_key and
    relative_value [T, N, H], read by the `buckets` [B, Q, S]. Heads of keys and values serve neighbouring heads of
    queries. `how` goes to `sees`; `scale` may be one number a head, whose gradient is that of the logits.
    """
    scales = np.broadcast_to(np.asarray(scale, np.float64), np.shape(arrays["query"])[2:3])
    arrays = {name: np.asarray(x, np.float64) for name, x in arrays.items()}
    query, key, value, no_history = (arrays[name] for name in ("query", "key", "value", "no_history"))
    batch, length, heads, _ = query.shape
    result = np.zeros((batch, length, heads, value.shape[-1]))
    given = np.zeros_like(result) if cotangent is None else np.asarray(cotangent, np.float64)
    gradients = {name: np.zeros_like(x) for name, x in arrays.items()}
    of_scale = np.zeros(heads)
    for row, i, n in np.ndindex(batch, length, heads):
        visible, scale = sees(segment_ids, times, row, i, key_segment_ids, key_times, **how), scales[n]
        if not visible:
            result[row, i, n] = no_history[n]
            gradients["no_history"][n] += given[row, i, n]
            continue
        group = n // (heads // key.shape[2])
        keys, values = key[row, visible, group], value[row, visible, group]
        bucket = None if buckets is None else buckets[row, i, visible]
        if "relative_key" in arrays:
            keys, values = keys + arrays["relative_key"][bucket, n], values + arrays["relative_value"][bucket, n]
        logits = scale * keys @ query[row, i, n]
        if "bias" in arrays:
            logits += arrays["bias"][n, bucket]
        weights = np.exp(logits - logits.max())
        weights /= weights.sum()
        result[row, i, n] = weights @ values
        of_weights = values @ given[row, i, n]
        of_logits = weights * (of_weights - weights @ of_weights)
        of_scale[n] += of_logits @ keys @ query[row, i, n]
        of_keys, of_values = scale * np.outer(of_logits, query[row, i, n]), np.outer(weights, given[row, i, n])
        gradients["query"][row, i, n] += scale * of_logits @ keys
        gradients["key"][row, visible, group] += of_keys
        gradients["value"][row, visible, group] += of_values
        if "relative_key" in arrays:
            np.add.at(gradients["relative_key"], (bucket, n), of_keys)
            np.add.at(gradients["relative_value"], (bucket, n), of_values)
        if "bias" in arrays:
            np.add.at(gradients["bias"][n], bucket, of_logits)
    if "scale" in arrays:
        gradients["scale"] = of_scale
    return result if cotangent is None else (result, gradients)
