"""Runs under the interpreter of scripts/image_reward_env.sh: the original package's model on given weights.

Usage: python original_image_reward.py CHECKPOINT INPUTS. Prints a JSON list of rewards. The tokenizer is replaced, for
token ids are given, and the vision tower is built at the checkpoint's size; everything else is the package's own.
"""

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path

import torch

blip_pretrain = import_module("ImageReward.models.BLIP.blip_pretrain")
vit = import_module("ImageReward.models.BLIP.vit")
image_reward = import_module("ImageReward.ImageReward")

checkpoint = torch.load(sys.argv[1], weights_only=True)
pixels, ids, mask = torch.load(sys.argv[2], weights_only=True)
width = checkpoint["blip.visual_encoder.norm.weight"].shape[0]
vocabulary, text_width = checkpoint["blip.text_encoder.embeddings.word_embeddings.weight"].shape

blip_pretrain.init_tokenizer = lambda: None
blip_pretrain.create_vit = lambda _, image_size, *rest: (
    vit.VisionTransformer(img_size=image_size, patch_size=16, embed_dim=width, depth=2, num_heads=2),
    width,
)
config = {
    "architectures": ["BertModel"],
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": text_width,
    "initializer_range": 0.02,
    "intermediate_size": 48,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 40,
    "model_type": "bert",
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "pad_token_id": 0,
    "add_type_embeddings": False,
    "vocab_size": vocabulary,
    "encoder_width": width,
    "add_cross_attention": True,
}
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "med_config.json"
    path.write_text(json.dumps(config))
    model = image_reward.ImageReward(med_config=str(path), device="cpu")
model.mlp = image_reward.MLP(text_width)
model.load_state_dict(checkpoint)
model.eval()
with torch.no_grad():
    print(json.dumps(model.score_gard(ids, mask, pixels).flatten().tolist()))
