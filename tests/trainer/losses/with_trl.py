"""Run by the interpreter that has TRL: its losses and gradients, of the models of a folder.

The folder holds `policy` and `reference`, two checkpoints with a tokenizer, and `examples.json`:
`answers`, token ids with labels, and `pairs`, each a prompt with a chosen and a rejected answer in
words. Added to it are `found.json` and the gradients of either loss by every parameter.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

torch.set_num_threads(1)


def settings(folder: Path) -> dict[str, Any]:
    return {
        "output_dir": str(folder / "trl"),
        "per_device_train_batch_size": 64,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "report_to": [],
        "max_length": None,
        "dataloader_pin_memory": False,
    }


def differentiate(trainer: Any, gradients: Path) -> float:
    """The loss of the trainer's only batch; its gradients go to a file."""
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    found = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    save_file(found, gradients)
    return float(loss)


def main(folder: Path) -> None:
    examples = json.loads((folder / "examples.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "policy")

    def model(name: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(folder / name, dtype=torch.float32)

    sft = SFTTrainer(
        model=model("policy"),
        args=SFTConfig(**settings(folder)),
        train_dataset=Dataset.from_list(examples["answers"]),
        processing_class=tokenizer,
    )
    found: dict[str, Any] = {"sft": differentiate(sft, folder / "sft.safetensors")}
    dpo = DPOTrainer(
        model=model("policy"),
        ref_model=model("reference"),
        args=DPOConfig(**settings(folder), beta=examples["beta"]),
        train_dataset=Dataset.from_list(examples["pairs"]),
        processing_class=tokenizer,
    )
    found["dpo"] = differentiate(dpo, folder / "dpo.safetensors")
    logged = dpo._metrics["train"]
    found["margin"], found["accuracy"] = (
        logged["rewards/margins"][0],
        logged["rewards/accuracies"][0],
    )
    keys = ("prompt_ids", "chosen_ids", "rejected_ids")
    found["pairs"] = [{key: row[key] for key in keys} for row in dpo.train_dataset]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
