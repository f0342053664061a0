#!/usr/bin/env python3
"""Makes a token file (format.md) from plain text in UTF-8.

    python=$(ci/venv.sh data)
    $python datasets/make_tokens.py my.txt --vocabulary 4096 --out my.tok

trains a byte-level BPE (Sennrich et al., 2016) on the text and writes my.tok and its tokenizer, my.json.
Each file is one document, or with --split REGEX one at each line where REGEX matches. A tokenizer of others, such as
that of weights for `lockstep train --init`, has an end token of its own name: --tokenizer tokenizer.json
--end '<|end_of_text|>' (Llama 3's).
"""

import argparse
import pathlib
import re
import sys

import numpy as np
import xxhash
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

END_OF_TEXT = "<|endoftext|>"  # unless --end says another


def read_text(path):
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError as wrong:
        raise ValueError(f"{path}: byte {wrong.start} is not UTF-8; give plain text in UTF-8") from None
    except OSError as wrong:
        raise ValueError(f"{path}: {wrong.strerror}; give an existing text file") from None


def special_tokens(tokenizer):
    """A few that it has, by their ids, in words."""
    names = [token.content for _, token in sorted(tokenizer.get_added_tokens_decoder().items()) if token.special]
    return f"it has {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}" if names else "it has no special tokens"


def read_tokenizer(path, end):
    try:
        tokenizer = Tokenizer.from_str(read_text(path))
    except ValueError:
        raise
    except Exception as wrong:  # the library raises no narrower one
        raise ValueError(f"{path}: not a tokenizer ({wrong}); give a .json that this script wrote, or "
                         "a tokenizer.json of Hugging Face's") from None
    if tokenizer.token_to_id(end) is None:
        raise ValueError(f"{path}: has no token {end} to end a document; name its own with --end: "
                         f"{special_tokens(tokenizer)}")
    return tokenizer


def train_tokenizer(documents, vocabulary, end):
    """A BPE of exactly `vocabulary` ids: end of text is 0, then the 256 bytes, then the merges."""
    if vocabulary < 257:
        raise ValueError(f"--vocabulary {vocabulary}: it must be at least 257, the bytes and the end of text")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocabulary, special_tokens=[end], show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(documents, trainer)
    if tokenizer.get_vocab_size() != vocabulary:
        raise ValueError(f"--vocabulary {vocabulary}: so little text has only {tokenizer.get_vocab_size()} "
                         "tokens; ask for that many or fewer, or give more text")
    return tokenizer


def split_documents(text, pattern):
    """`text` cut before each line where `pattern` matches; pieces of white space alone are dropped."""
    if pattern is None:
        pieces = [text]
    else:
        try:
            re.compile(pattern)
        except re.error as wrong:
            raise ValueError(f"--split '{pattern}': {wrong}; give a regular expression of Python's") from None
        cuts = [0, *(match.start() for match in re.finditer(f"^(?:{pattern})", text, re.MULTILINE)), len(text)]
        pieces = [text[a:b] for a, b in zip(cuts, cuts[1:])]
    return [piece.strip() + "\n" for piece in pieces if piece.strip()]


def encode(tokenizer, documents, end_of_text):
    """Ids of all documents, an end of text behind each."""
    tokenizer.encode_special_tokens = True  # text that spells <|endoftext|> is text
    end = tokenizer.token_to_id(end_of_text)
    ids = []
    for encoding in tokenizer.encode_batch(documents, add_special_tokens=False):
        ids += encoding.ids
        ids.append(end)
    return np.array(ids), end


def write_tokens(path, ids, vocabulary, end_of_text):
    width = 2 if vocabulary <= 65536 else 4
    payload = ids.astype(f"<u{width}").tobytes()
    header = np.zeros(1, np.dtype([
        ("magic", "S8"), ("version", "<u4"), ("width", "<u4"), ("count", "<u8"), ("vocabulary", "<u4"),
        ("end_of_text", "<u4"), ("hash", "<u8"), ("reserved", "V24")]))
    header["magic"], header["version"], header["width"], header["count"] = b"LOCKTOK1", 1, width, len(ids)
    header["vocabulary"], header["end_of_text"] = vocabulary, end_of_text
    header["hash"] = xxhash.xxh3_64_intdigest(payload)
    pathlib.Path(path).write_bytes(header.tobytes() + payload)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", nargs="+", help="text files in UTF-8")
    parser.add_argument("--out", required=True, type=pathlib.Path, help="the token file to write")
    parser.add_argument("--vocabulary", type=int, help="train a tokenizer of this many ids, beside --out as .json")
    parser.add_argument("--tokenizer", help="or use this one, made before, or one of others (tokenizer.json)")
    parser.add_argument("--end", metavar="TOKEN", default=END_OF_TEXT, help="that ends a document; default: %(default)s")
    parser.add_argument("--split", metavar="REGEX", help="a document begins at each line where this matches")
    options = parser.parse_args()
    if (options.vocabulary is None) == (options.tokenizer is None):
        parser.error("give either --vocabulary or --tokenizer")
    try:
        documents = []
        for name in options.text:
            documents += split_documents(read_text(name), options.split)
        if not documents:
            raise ValueError("there is nothing in the text but white space; give a file with words")
        if options.tokenizer:
            tokenizer = read_tokenizer(options.tokenizer, options.end)
        else:
            tokenizer = train_tokenizer(documents, options.vocabulary, options.end)
            tokenizer.save(str(options.out.with_suffix(".json")))
        ids, end = encode(tokenizer, documents, options.end)
        write_tokens(options.out, ids, tokenizer.get_vocab_size(), end)
    except (OSError, ValueError) as wrong:
        print(f"make_tokens.py: {wrong}", file=sys.stderr)
        sys.exit(2)
    size = sum(len(document.encode("utf-8")) for document in documents)
    print(f"{options.out}: {len(ids)} tokens of {tokenizer.get_vocab_size()} ids, {len(documents)} documents, "
          f"{size / len(ids):.2f} bytes per token")


if __name__ == "__main__":
    main()
