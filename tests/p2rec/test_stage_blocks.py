"""Tables of what the stages found: every number at its place, and what is not there a dash."""

from delrec_jax.p2rec.stage_blocks import category_block, category_lines, validation_block


def parsed(seed, step, attributes):
    return {
        "seed": seed,
        "step": step,
        "steps": 90,
        "categories": {
            "popularity_explained": 0.316,
            "popularity_deciles": 0.0449,
            "attributes": attributes,
        },
        "top_category": 0.7,
        "constant": {"top_category": 0.6},
        "one_item": {"top_category": 0.5, "constant": {"top_category": 0.25}},
    }


PARSED = [parsed(0, 60, {"genre": 0.123}), parsed(1, 0, {})]


def test_categories_by_seed():
    block = category_block(PARSED)
    assert block.columns[3] == "AMI genre"
    first, second = ([cell.text for cell in line.cells] for line in block.lines)
    assert first == ["32 %", "0.045", "0.123", "0.700", "0.600", "0.500", "0.250", "60 of 90"]
    assert second[2] == "–" and second[-1] == "0: not tuned"
    assert all(len(line.cells) == len(block.columns) - 1 for line in block.lines)


def test_a_seed_that_tuned_nothing_is_named():
    lines = category_lines(PARSED)
    assert len(lines) == 3
    assert "32 % of the variance" in lines[0] and lines[0].endswith("0.04, with genre 0.12.")
    assert "seed 0" in lines[0] and lines[2].startswith("Seed 1: no step of parse was better")


def test_validation_is_averaged_and_the_text_alone_is_beside():
    def row(system, seed, value, **more):
        return {
            "teacher": "sasrec",
            "seed": seed,
            "system": system,
            "valid_ndcg10": value,
            "step": 10 * (seed + 1),
            "steps": 40,
            **more,
        }

    rows = [
        *(row("teacher", seed, 0.1 + 0.02 * seed) for seed in (0, 1)),
        *(row("teacher_augmented", seed, 0.2, alone_ndcg10=0.05 + 0.01 * seed) for seed in (0, 1)),
    ]
    plain, text = validation_block(rows).lines
    assert (plain.label, text.label) == ("Teacher (SASRec)", "Teacher + P2Rec (SASRec)")
    assert [cell.text for cell in plain.cells] == ["0.1100", "–", "10 of 40, 20 of 40"]
    assert [cell.text for cell in text.cells] == ["0.2000", "0.0550", "10 of 40, 20 of 40"]
