"""Seconds of one GRPO step of TRL on a checkpoint directory, a student in its reward function: the last line printed is JSON."""

import json
import sys
import tempfile
import time
from collections import defaultdict

import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.utils import logging
from trl import GRPOConfig, GRPOTrainer

# Sequences that gradients are computed for at a time; all of a group at once would not fit without computing layers twice.
MICRO_BATCH = 4


def memory(line):
    """Bytes, of VmRSS or VmHWM."""
    with open("/proc/self/status") as status:
        return next(int(text.split()[1]) * 1024 for text in status if text.startswith(line))


class Student:
    """Log-probs of solution and explanation, given the question only: mean and least of each."""

    def __init__(self, directory, temperature, seconds):
        self.model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        self.temperature = temperature
        self.seconds = seconds
        self.__name__ = "student"

    @torch.inference_mode()
    def __call__(self, completion_ids, before, after, solution, **_):
        started = time.perf_counter()
        # All of one question, equally long.
        ids = torch.tensor([b + c + a for b, c, a in zip(before, completion_ids, after)])
        rows = len(completion_ids[0]) + len(after[0])
        logits = self.model(ids, use_cache=False, logits_to_keep=rows + 1).logits[:, :-1]  # (B, rows, V)
        logprobs = torch.log_softmax(logits / self.temperature, -1).gather(-1, ids[:, -rows:, None])[..., 0]
        thought = logprobs[:, : len(completion_ids[0])]
        answer = logprobs[:, rows - solution[0] :]
        rewards = answer.mean(1) + 0.01 * answer.amin(1) + 1e-3 * thought.mean(1) + 1e-5 * thought.amin(1)
        self.seconds["scoring"] += time.perf_counter() - started
        return rewards.tolist()


def timed(trainer, name, phase, seconds):
    inner = getattr(trainer, name)

    def wrapped(*args, **kwargs):
        started = time.perf_counter()
        result = inner(*args, **kwargs)
        seconds[phase] += time.perf_counter() - started
        return result

    setattr(trainer, name, wrapped)


class Steps(TrainerCallback):
    def __init__(self, seconds):
        self.seconds = seconds
        self.steps = []

    def on_step_begin(self, args, state, control, **_):
        self.seconds.clear()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **_):
        self.steps.append((time.perf_counter() - self.started, dict(self.seconds)))


def main():
    request = json.loads(sys.argv[1])
    torch.set_num_threads(request["threads"])
    logging.disable_progress_bar()
    empty = memory("VmRSS")
    seconds = defaultdict(float)
    questions = request["questions"]
    length = request["length"]
    args = GRPOConfig(
        output_dir=tempfile.mkdtemp(),
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        per_device_train_batch_size=MICRO_BATCH,
        gradient_accumulation_steps=request["explanations"] // MICRO_BATCH,
        num_generations=request["explanations"],
        max_completion_length=length,
        generation_kwargs={"min_new_tokens": length},
        temperature=request["temperature"],
        beta=request["beta"],
        loss_type="grpo",
        learning_rate=request["learningRate"],
        max_grad_norm=1.0,
        max_steps=request["steps"],
        shuffle_dataset=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    steps = Steps(seconds)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(request["directory"], dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(request["directory"]),
        reward_funcs=Student(request["directory"], request["temperature"], seconds),
        args=args,
        train_dataset=Dataset.from_list(questions),
        peft_config=LoraConfig(r=request["rank"], lora_alpha=request["alpha"], target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[steps],
    )
    lengths = {len(ids) for ids in trainer.processing_class([q["prompt"] for q in questions])["input_ids"]}
    if lengths != {request["prompt"]}:
        raise ValueError(f"prompts of {lengths} tokens")
    timed(trainer, "_generate", "sampling", seconds)
    timed(trainer, "_generate_and_score_completions", "made", seconds)
    timed(trainer, "training_step", "trained", seconds)
    trainer.train()
    # The first one also makes the optimizer's state.
    step, parts = min(steps.steps[1:], key=lambda entry: entry[0])
    figures = {
        "stepSeconds": step,
        "phases": {
            "sampling": parts["sampling"],
            "scoring": parts["scoring"],
            "reference": parts["made"] - parts["sampling"] - parts["scoring"],
            "forward_backward": parts["trained"] - parts["made"],
            "optimizer": step - parts["trained"],
        },
        "tokens": request["explanations"] * length,
        "emptyBytes": empty,
        "peakBytes": memory("VmHWM"),
    }
    print(json.dumps(figures))


main()
