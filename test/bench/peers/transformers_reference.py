"""Tokens per second of Transformers on a checkpoint directory: the last line printed is JSON.

The loop is written out because `generate` evaluates the prompt once per sequence. Here it is evaluated once and its cache
repeated for the group; then every step costs what one of `generate` does, or a little less.
"""

import json
import sys
import time

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

REPETITIONS = 3


@torch.inference_mode()
def decode(model, prompt, new_tokens, sequences):
    """Returns tokens per second of all sequences without the prompt, and seconds with it."""
    begun = time.perf_counter()
    cache = model(prompt, use_cache=True, logits_to_keep=1).past_key_values
    cache.batch_repeat_interleave(sequences)
    started = time.perf_counter()
    # Different first tokens, so that the continuations differ as well.
    token = torch.arange(3, 3 + sequences).unsqueeze(1)  # (sequences, 1)
    for _ in range(new_tokens):
        logits = model(token, past_key_values=cache, use_cache=True).logits  # (sequences, 1, V)
        token = logits[:, -1].argmax(-1, keepdim=True)
    ended = time.perf_counter()
    return sequences * new_tokens / (ended - started), ended - begun


@torch.inference_mode()
def score(model, ids):
    """Log-probs of the given tokens; returns tokens per second."""
    started = time.perf_counter()
    logits = model(ids, use_cache=False).logits[:, :-1].float()  # (1, T - 1, V)
    torch.log_softmax(logits, -1).gather(-1, ids[:, 1:, None])
    return ids.shape[1] / (time.perf_counter() - started)


def main():
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    logging.disable_progress_bar()
    dtype = getattr(torch, request["dtype"])
    model = AutoModelForCausalLM.from_pretrained(request["directory"], dtype=dtype).eval()
    # Ids below 256 are in every vocabulary.
    ids = (torch.arange(max(request["prompt"], request["prefill"])) * 31 + 3).remainder(256).unsqueeze(0)
    prompt = ids[:, : request["prompt"]]
    one = [decode(model, prompt, request["newTokens"], 1) for _ in range(REPETITIONS)]
    group = [decode(model, prompt, request["newTokens"], request["group"]) for _ in range(REPETITIONS)]
    scores = [score(model, ids[:, : request["prefill"]]) for _ in range(REPETITIONS)]
    figures = {
        "oneStream": max(rate for rate, _ in one),
        "group": max(rate for rate, _ in group),
        "groupWallSeconds": min(seconds for _, seconds in group),
        "prefill": max(scores),
    }
    print(json.dumps(figures))


main()
