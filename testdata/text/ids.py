"""Makes sample.*.json: the ids of sample.txt by Hugging Face tokenizers (made with 0.23.3).

usage: ids.py TOKENIZER_JSON > IDS_JSON
"""
import json
import sys
from pathlib import Path

from tokenizers import Tokenizer

text = (Path(__file__).parent / "sample.txt").read_bytes().decode()
print(json.dumps(Tokenizer.from_file(sys.argv[1]).encode(text, add_special_tokens=False).ids, separators=(",", ":")))
