"""The token files say what the text says, and have the header that format.md describes.

    $(ci/venv.sh data) -m unittest discover datasets
"""

import pathlib
import struct
import subprocess
import sys
import tempfile
import unittest

import numpy as np
import xxhash
from tokenizers import Tokenizer, processors

import make_tokens

HERE = pathlib.Path(__file__).resolve().parent
TEXT = "Chapter 1\nIt is a truth, universally acknowledged.\n\nChapter 2\n<|endoftext|> costs £3, 三 too.\n"
WORDS = "the first of the second of the third of the fourth, that is the question of the day. " * 9


def parts(path):
    """Header fields and tokens, read by struct alone, as format.md lists them."""
    data = pathlib.Path(path).read_bytes()
    header = struct.unpack_from("<8sIIQIIQ24s", data)
    return header, np.frombuffer(data, {2: "<u2", 4: "<u4"}[header[2]], offset=64), data[64:]


class TokenFile(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        (self.folder / "my.txt").write_text(TEXT + "Chapter 3\n" + WORDS, encoding="utf-8")

    def make(self, *arguments):
        return subprocess.run([sys.executable, HERE / "make_tokens.py", *arguments, "--out", self.folder / "my.tok"],
                              cwd=self.folder, capture_output=True, text=True)

    def test_documents_come_back(self):
        made = self.make("my.txt", "--vocabulary", "263", "--split", "Chapter ")
        self.assertEqual(made.returncode, 0, made.stderr)
        header, ids, payload = parts(self.folder / "my.tok")
        self.assertEqual(header, (b"LOCKTOK1", 1, 2, len(ids), 263, 0, xxhash.xxh3_64_intdigest(payload), bytes(24)))
        self.assertEqual(len(payload), 2 * header[3])
        self.assertEqual(ids[-1], 0)
        self.assertEqual(np.count_nonzero(ids == 0), 3)
        tokenizer = Tokenizer.from_file(str(self.folder / "my.json"))
        documents = [tokenizer.decode(part[part > 0]) for part in np.split(ids, np.flatnonzero(ids == 0))]
        self.assertEqual("".join(documents), TEXT.replace("\n\nC", "\nC") + "Chapter 3\n" + WORDS.strip() + "\n")

    def test_what_stands_before_the_first_document_is_one(self):
        pieces = make_tokens.split_documents("A preface.\n\nChapter 1\nOne.\n \nChapter 2\nTwo.", "Chapter ")
        self.assertEqual(pieces, ["A preface.\n", "Chapter 1\nOne.\n", "Chapter 2\nTwo.\n"])
        self.assertEqual(make_tokens.split_documents("In Chapter 1 of it.\n", "Chapter "), ["In Chapter 1 of it.\n"])
        self.assertEqual(make_tokens.split_documents(TEXT, None), [TEXT])

    def test_tokenizer_made_before(self):
        self.make("my.txt", "--vocabulary", "263")
        first = (self.folder / "my.tok").read_bytes()
        self.make("my.txt", "--tokenizer", "my.json")
        self.assertEqual((self.folder / "my.tok").read_bytes(), first)

    def test_tokenizer_of_others(self):
        """As Llama 3's: special tokens of other names behind the vocabulary, and a post-processor that begins texts."""
        tokenizer = Tokenizer.from_file(str(HERE / "excerpt-v509.json")).to_str().replace("<|endoftext|>", "<|other|>")
        tokenizer = Tokenizer.from_str(tokenizer)
        tokenizer.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", 509)])
        tokenizer.save(str(self.folder / "other.json"))
        made = self.make("my.txt", "--tokenizer", "other.json")
        self.assertEqual(made.returncode, 2)
        self.assertIn("other.json: has no token <|endoftext|>", made.stderr)
        self.assertIn("--end: it has <|other|>, <|begin_of_text|>, <|end_of_text|>\n", made.stderr)
        made = self.make("my.txt", "--tokenizer", "other.json", "--split", "Chapter ", "--end", "<|end_of_text|>")
        self.assertEqual(made.returncode, 0, made.stderr)
        header, ids, _ = parts(self.folder / "my.tok")
        self.assertEqual((header[4], header[5]), (511, 510))
        self.assertEqual(np.count_nonzero(ids == 510), 3)
        self.assertEqual((ids[-1], np.count_nonzero(ids == 509)), (510, 0))

    def test_large_vocabulary_takes_four_bytes(self):
        path = self.folder / "wide.tok"
        make_tokens.write_tokens(path, np.array([70000, 1, 0]), 70001, 0)
        header, ids, _ = parts(path)
        self.assertEqual((header[2], header[3], ids.tolist()), (4, 3, [70000, 1, 0]))

    def test_bad_input_is_one_sentence_and_exit_code_2(self):
        (self.folder / "bad.txt").write_bytes(b"\xff\xfe")
        (self.folder / "empty.txt").write_text(" \n")
        for arguments, said in (
            (("none.txt", "--vocabulary", "300"), "No such file"),
            (("bad.txt", "--vocabulary", "300"), "not UTF-8"),
            (("empty.txt", "--vocabulary", "300"), "nothing in the text"),
            (("my.txt", "--vocabulary", "100"), "at least 257"),
            (("my.txt", "--vocabulary", "99999"), "so little text"),
            (("my.txt", "--tokenizer", "my.txt"), "not a tokenizer"),
            (("my.txt", "--vocabulary", "300", "--split", "("), "regular expression"),
        ):
            with self.subTest(said):
                made = self.make(*arguments)
                self.assertEqual(made.returncode, 2)
                self.assertIn(said, made.stderr)
                self.assertEqual(made.stderr.count("\n"), 1)

    def test_committed_file_is_the_excerpt(self):
        header, ids, payload = parts(HERE / "excerpt-v509.tok")
        self.assertEqual(header[:6], (b"LOCKTOK1", 1, 2, len(ids), 509, 0))
        self.assertEqual(header[6], xxhash.xxh3_64_intdigest(payload))
        tokenizer = Tokenizer.from_file(str(HERE / "excerpt-v509.json"))
        text = "".join(tokenizer.decode(part[part > 0]) for part in np.split(ids, np.flatnonzero(ids == 0)))
        self.assertEqual(text.split(), (HERE / "excerpt.txt").read_text(encoding="utf-8").split())


if __name__ == "__main__":
    unittest.main()
