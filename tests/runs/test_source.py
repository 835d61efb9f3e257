from __future__ import annotations

from digitkaggle.runs.source import compute_source_digest


def test_the_digest_depends_on_names_and_texts_of_modules_and_on_nothing_else(tmp_path):
    sources = {"a.py": "A = 1\n", "b.py": "B = 2\n"}
    variants = {
        "same": sources,
        "with other files": sources | {"notes.txt": "", "cached.pyc": ""},
        "other text": sources | {"b.py": "B = 3\n"},
        "other name": {"a.py": "A = 1\n", "c.py": "B = 2\n"},
        "a line moved": {"a.py": "A = 1\nB = 2\n", "b.py": ""},
        "one more": sources | {"c.py": ""},
    }
    digests = {}
    for name, files in variants.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
        digests[name] = compute_source_digest(tmp_path / name)
    assert digests["same"] == digests["with other files"]
    assert len(set(digests.values())) == len(variants) - 1
