"""Models of a few kilobytes with random weights, made here by transformers and tokenizers themselves."""

from __future__ import annotations

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessorPil,
)

WORDS = ["a", "film", "is", "good", "bad", "very", "not", "this", "Ada", "Paris"]
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
VOCABULARY = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}


def tokenizer(**special):
    made = Tokenizer(models.WordLevel(VOCABULARY, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    if "cls_token" in special:
        ends = [("[CLS]", VOCABULARY["[CLS]"]), ("[SEP]", VOCABULARY["[SEP]"])]
        made.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=ends
        )
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", **special)


def saved(folder, model, words):
    model.save_pretrained(folder)
    words.save_pretrained(folder)
    return str(folder)


def bert(folder, kind=BertForSequenceClassification):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=3,
        initializer_range=0.5,  # so that labels differ from row to row
        **sizes,
    )
    words = tokenizer(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return saved(folder, kind(config), words)


def tagger(folder):
    return bert(folder, BertForTokenClassification)


def gpt2(folder):
    """One without a token to fill up with, as GPT-2 is."""
    torch.manual_seed(0)
    end = VOCABULARY["[SEP]"]
    config = GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=16,
        n_layer=2,
        n_head=2,
        n_positions=64,
        initializer_range=0.5,
        bos_token_id=end,
        eos_token_id=end,
    )
    return saved(folder, GPT2LMHeadModel(config), tokenizer(eos_token="[SEP]"))


def vit(folder):
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ViTConfig(
        image_size=32,
        patch_size=8,
        intermediate_size=32,
        num_labels=3,
        initializer_range=0.5,
        **sizes,
    )
    return saved(
        folder,
        ViTForImageClassification(config),
        ViTImageProcessorPil(size={"height": 32, "width": 32}),
    )
