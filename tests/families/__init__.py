"""Model families, a tiny random model of each: what is grown loads, and computes what it must."""

import os

# Before anything imports transformers.
os.environ.update(HF_HUB_OFFLINE="1", TQDM_DISABLE="1")
