"""The stages of a training, by the words that people know them by."""

STAGES = {
    "pretrain": "Continued pretraining",
    "sft": "Supervised fine-tuning",
    "dpo": "Direct preference optimisation",
}
