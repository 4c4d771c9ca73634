"""Judging exits of a large vocabulary takes no more memory the longer it goes on."""

import json
import subprocess
import sys

PROGRAM = """
import gc, json, torch
from transformers import LlamaConfig, LlamaForCausalLM
from pathlib import Path
import sys
from foredraft.bench.bytes_tokenizer import byte_tokenizer
from foredraft.engines.torch_model import load_model
from foredraft.exits.heads import ExitHead
from foredraft.exits.judge import judge, readable

torch.set_num_threads(1)
config = LlamaConfig(vocab_size=49152, hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2,
                     num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True)
folder = Path(sys.argv[1])
LlamaForCausalLM(config).save_pretrained(folder)
(folder / 'tokenizer.json').write_bytes(byte_tokenizer().json)
model = load_model(folder)
heads = {layer: ExitHead(model.norm, 0) for layer in (1, 2)}
seen = []

def resident(done, total):
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    seen.append(pages * 4096 / 2**20)

judge(readable(model), heads, torch.randint(0, 49152, (12, 64)), 1, 0, resident)
print(json.dumps(seen))
"""


def test_resident_memory_stays_as_it_is_after_the_first_windows(tmp_path: object) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    mb: list[float] = json.loads(done.stdout.splitlines()[-1])
    assert max(mb[6:]) < max(mb[:4]) + 60.0, mb  # it was 40 MB a window
