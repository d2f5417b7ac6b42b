"""Seconds of one LoRA training step of PEFT on a checkpoint directory: the last line printed is JSON.

As TRL does it: padded batches of whole sequences, logits of the completion only, gradients added up over micro-batches.
"""

import json
import sys
import time

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from transformers.utils import logging


def memory(line):
    """Bytes, of VmRSS or VmHWM."""
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) * 1024 for text in status if text.startswith(line))


def batch(case):
    """(sequences, prompt + length) token ids, the same as in train-child.ts."""
    positions = torch.arange(case["prompt"] + case["length"])
    own = (positions[None] * 31 + torch.arange(case["sequences"])[:, None] * 7 + 5).remainder(256)
    shared = (positions * 31 + 3).remainder(256)
    return torch.where(positions < case["prompt"], shared, own)


def step(model, optimizer, ids, case):
    trained = case["length"] if case["prompt"] else case["length"] - 1
    total = ids.shape[0] * trained
    for part in ids.split(case["peerBatch"]):
        logits = model(part, use_cache=False, logits_to_keep=trained + 1).logits[:, :-1]  # (b, trained, V)
        targets = part[:, -trained:]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum") / total
        loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    optimizer.zero_grad()


def main():
    request = json.loads(sys.argv[1])
    case = request["run"]
    torch.set_num_threads(request["threads"])
    logging.disable_progress_bar()
    empty = memory("VmRSS")
    model = AutoModelForCausalLM.from_pretrained(request["directory"], dtype=torch.float32)
    config = LoraConfig(r=request["rank"], lora_alpha=request["alpha"], target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config).train()
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-4, weight_decay=0.0)
    ids = batch(case)
    loaded = memory("VmRSS")
    seconds = []
    # The first one also makes the optimizer's state.
    for _ in range(case["repetitions"] + 1):
        started = time.perf_counter()
        step(model, optimizer, ids, case)
        seconds.append(time.perf_counter() - started)
    figures = {
        "stepSeconds": min(seconds[1:]),
        "emptyBytes": empty,
        "loadedBytes": loaded,
        "peakBytes": memory("VmHWM"),
    }
    print(json.dumps(figures))


main()
