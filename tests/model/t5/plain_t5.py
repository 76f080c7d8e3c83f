"""T5 in NumPy and float64, one sequence, layer and head at a time: what the network is held to.

Written from the description of the model, with no code of `model` but its configuration.
"""

import math

import numpy as np


def bucket(relative: int, bidirectional: bool, buckets: int, max_distance: int) -> int:
    """The bucket of key position - query position."""
    offset, distance = 0, -relative
    if bidirectional:
        buckets //= 2
        if relative > 0:
            offset = buckets
        distance = abs(distance)
    distance = max(distance, 0)
    exact = buckets // 2
    if distance < exact:
        return offset + distance
    # A hair more: where the logarithms divide without rest, rounding must not go below.
    steps = math.log(distance / exact) / math.log(max_distance / exact) * (buckets - exact)
    return offset + min(buckets - 1, exact + int(steps + 1e-9))


def sees(query: int, key: int, segments, causal: bool, prefix=None) -> bool:
    if segments[query] == 0 or segments[query] != segments[key]:
        return False
    return not causal or key <= query or (prefix is not None and bool(prefix[key]))


class PlainT5:
    def __init__(self, config, params):
        import jax

        self.config = config
        self.params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def _norm(self, x, scale):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + self.config.norm_epsilon) * scale

    def _attention(self, layer, hidden, source, seen, table=None, bidirectional=False):
        config, (queries, keys) = self.config, (len(hidden), len(source))
        outputs = []
        for head in range(config.num_heads):
            columns = slice(head * config.d_kv, (head + 1) * config.d_kv)
            query = hidden @ layer["query"][:, columns]
            logits = query @ (source @ layer["key"][:, columns]).T
            for i in range(queries):
                for j in range(keys):
                    if table is not None:
                        number = bucket(
                            j - i, bidirectional, config.relative_buckets,
                            config.relative_max_distance,
                        )  # fmt: skip
                        logits[i, j] += table[head, number]
                    if not seen(i, j):
                        logits[i, j] = -np.inf
            logits[np.isinf(logits).all(axis=1)] = 0  # padding sees nothing: any weights will do
            weights = np.exp(logits - logits.max(axis=1, keepdims=True))
            weights /= weights.sum(axis=1, keepdims=True)
            outputs.append(weights @ (source @ layer["value"][:, columns]))
        return np.concatenate(outputs, axis=1) @ layer["output"]

    def _feed_forward(self, layer, x):
        if "wi" in layer:
            inner = np.maximum(x @ layer["wi"], 0)
        else:
            gate = x @ layer["wi_0"]
            gelu = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
            inner = gelu * (x @ layer["wi_1"])
        return inner @ layer["wo"]

    def _stack(self, stack, hidden, seen, bidirectional, memory=None, memory_seen=None):
        for number in range(len(stack["layers"]["self_attention"]["norm"])):
            layer = {
                name: {kernel: array[number] for kernel, array in part.items()}
                for name, part in stack["layers"].items()
            }
            part = layer["self_attention"]
            normed = self._norm(hidden, part["norm"])
            hidden = hidden + self._attention(
                part, normed, normed, seen, stack["relative_bias"], bidirectional
            )
            if memory is not None:
                part = layer["cross_attention"]
                normed = self._norm(hidden, part["norm"])
                hidden = hidden + self._attention(part, normed, memory, memory_seen)
            part = layer["feed_forward"]
            hidden = hidden + self._feed_forward(part, self._norm(hidden, part["norm"]))
            if part := layer.get("adapter"):
                hidden = hidden + self._feed_forward(part, self._norm(hidden, part["norm"]))
        return self._norm(hidden, stack["final_norm"])

    def encode(self, tokens, segments):
        """The encoder's output of one sequence, [length, d_model]."""
        stack = self.params["shared" if self.config.shares_stacks else "encoder"]
        return self._stack(
            stack, self.params["embedding"][tokens],
            lambda i, j: sees(i, j, segments, causal=False), bidirectional=True,
        )  # fmt: skip

    def logits(self, row):
        """The logits of one row of a batch, [length, vocabulary]."""
        config, params = self.config, self.params
        segments = row["decoder_segments"]
        memory = prefix = None
        stack = params["decoder"]
        if config.shares_stacks:
            stack = {**params["shared"], "layers": {**params["shared"]["layers"]}}
            stack["layers"]["cross_attention"] = params["decoder"]["layers"]["cross_attention"]
        if config.has_encoder:
            memory = self.encode(row["encoder_tokens"], row["encoder_segments"])
        if config.architecture == "prefix-language-model":
            prefix = row["prefix"]

        def memory_seen(i, j):
            return segments[i] > 0 and segments[i] == row["encoder_segments"][j]

        hidden = self._stack(
            stack, params["embedding"][row["decoder_input_tokens"]],
            lambda i, j: sees(i, j, segments, True, prefix),
            prefix is not None, memory, memory_seen,
        )  # fmt: skip
        if config.tied_logits:
            return hidden * config.d_model**-0.5 @ params["embedding"].T
        return hidden @ params["logits"]
